"""POST /v1/completions."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.types import ASGIApp

from .. import prompts
from ..answering import json_response
from ..bodies import read
from ..jobs import Piece
from ..logprobs import of_completion
from ..run import Run
from ..schemas.base import Usage
from ..schemas.completions import Completion, CompletionChoice, CompletionLogprobs, CompletionRequest
from ..service import Service
from ..sse import DONE, EventStream, event

_TOKENS = 16  # of an answer, where the request does not say: OpenAI's


async def answer(http: Request) -> ASGIApp:
    """Continue prompts, at once or as it comes."""
    service: Service = http.app.state
    body = await read(http, CompletionRequest)
    run = await _begun(service, http, body)
    completion = _Completion(run, body)
    if not body.stream:
        return json_response(await run.whole(completion.whole))
    await run.accepted()
    return EventStream(completion.events(), run.close, run.fail)


async def _begun(service: Service, http: Request, body: CompletionRequest) -> Run:
    model = service.named(body.model)
    service.check("generate", "continue a text")
    place = service.gate.enter(body.answers)
    try:
        asker = service.asker
        params = service.params({**body.chosen(), "logprobs": body.logprobs}, max_tokens=_TOKENS)
        asked = [
            (await service.think(prompts.continuation, asker, prompt, body.suffix), params)
            for prompt in body.prompts
        ]
        return Run(service, http, asked, model=model, prefix="cmpl-", place=place)
    except BaseException:
        place.leave()
        raise


class _Completion:
    """The answers to one or several prompts, in OpenAI's shapes."""

    def __init__(self, run: Run, body: CompletionRequest) -> None:
        self._run, self._body = run, body
        self._offsets = [len(self._echo(index)) for index in range(run.answers)]

    def _echo(self, index: int) -> str:
        """Return the text of an answer's prompt, where it is to stand before it."""
        if not self._body.echo:
            return ""
        request = self._run.asked[index // (self._body.n or 1)][0]
        text = request.text
        return self._run.service.asker.tokenizer.decode(request.ids) if text is None else text

    async def whole(self) -> Completion:
        """Return all answers."""
        count = self._run.answers
        texts = [self._echo(i) for i in range(count)]
        reasons: list[str | None] = [None] * count
        parts: list[list[CompletionLogprobs]] = [[] for _ in range(count)]
        async for pieces in self._run.pieces():
            for piece in pieces:
                if (entry := self._logprobs(piece)) is not None:
                    parts[piece.index].append(entry)
                texts[piece.index] += piece.text
                reasons[piece.index] = piece.finish_reason
        choices = [
            CompletionChoice(
                index=i,
                text=texts[i],
                finish_reason=reasons[i],
                logprobs=_joined(parts[i]) if self._body.logprobs is not None else None,
                token_ids=self._run.tokens.get(i, []) if self._body.return_token_ids else None,
                prompt_token_ids=self._ids(i),
            )
            for i in range(count)
        ]
        said = self._said(choices, usage=self._run.usage())
        said.replay = await self._run.replay() if self._body.return_replay else None
        return said

    async def events(self) -> AsyncIterator[str]:
        """Yield the events of a stream."""
        for i in range(self._run.answers):
            if self._body.echo or self._body.return_token_ids:
                yield event(
                    self._said([CompletionChoice(index=i, text=self._echo(i), prompt_token_ids=self._ids(i))])
                )
        async for pieces in self._run.pieces():
            yield "".join(event(self._said([self._choice(piece)])) for piece in pieces)
        if self._body.return_replay:
            said = self._said([])
            said.replay = await self._run.replay()
            yield event(said)
        if self._body.usage_at_end:
            yield event(self._said([], usage=self._run.usage()))
        yield DONE

    def _choice(self, piece: Piece) -> CompletionChoice:
        return CompletionChoice(
            index=piece.index,
            text=piece.text,
            finish_reason=piece.finish_reason,
            logprobs=self._logprobs(piece),
            token_ids=list(piece.ids) if self._body.return_token_ids else None,
        )

    def _said(self, choices: list[CompletionChoice], usage: Usage | None = None) -> Completion:
        run = self._run
        return Completion(id=run.id, created=run.created, model=run.model.id, choices=choices, usage=usage)

    def _ids(self, index: int) -> list[int] | None:
        if not self._body.return_token_ids:
            return None
        return self._run.asked[index // (self._body.n or 1)][0].ids

    def _logprobs(self, piece: Piece) -> CompletionLogprobs | None:
        offset = self._offsets[piece.index]
        self._offsets[piece.index] += len(piece.text)
        if self._body.logprobs is None or not piece.logprobs:
            return None
        return of_completion(self._run.service.asker.tokenizer, piece, self._body.logprobs, offset)


def _joined(parts: list[CompletionLogprobs]) -> CompletionLogprobs:
    tops = [part.top_logprobs for part in parts if part.top_logprobs is not None]
    return CompletionLogprobs(
        tokens=[one for part in parts for one in part.tokens],
        token_logprobs=[one for part in parts for one in part.token_logprobs],
        top_logprobs=[one for top in tops for one in top] if tops else None,
        text_offset=[one for part in parts for one in part.text_offset],
    )
