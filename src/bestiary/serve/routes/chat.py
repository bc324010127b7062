"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.types import ASGIApp

from .. import prompts
from ..answering import json_response
from ..bodies import read
from ..jobs import Piece
from ..logprobs import of_chat
from ..run import Run
from ..schemas.chat import (
    AnswerMessage,
    ChatChunk,
    ChatCompletion,
    ChatLogprobs,
    ChatRequest,
    Choice,
    ChunkChoice,
    Delta,
    SaidCall,
)
from ..service import Service
from ..sse import DONE, EventStream, event
from ..tools import Reader


async def answer(http: Request) -> ASGIApp:
    """Answer a conversation, at once or as it comes."""
    service: Service = http.app.state
    body = await read(http, ChatRequest)
    run = await _begun(service, http, body)
    chat = _Chat(run, body)
    if not body.stream:
        return json_response(await run.whole(chat.whole))
    await run.accepted()
    return EventStream(chat.events(), run.close, run.fail)


async def _begun(service: Service, http: Request, body: ChatRequest) -> Run:
    model = service.named(body.model)
    service.check("generate", "answer a conversation")
    place = service.gate.enter(body.n or 1)
    try:
        asker, tools = service.asker, body.described()
        request = await service.think(prompts.conversation, asker, body.conversation(), tools)
        chosen = {**body.chosen(), "logprobs": body.likeliest}
        params = service.params(chosen, max_tokens=body.max_completion_tokens)
        return Run(service, http, [(request, params)], model=model, prefix="chatcmpl-", place=place)
    except BaseException:
        place.leave()
        raise


class _Chat:
    """The answers to one conversation, in OpenAI's shapes."""

    def __init__(self, run: Run, body: ChatRequest) -> None:
        self._run, self._body = run, body
        tools = body.described()
        how = {"forced": body.forced is not None, "one": body.parallel_tool_calls is False}
        asker, (request, _) = run.service.asker, run.asked[0]
        self._readers = [Reader(asker, request, tools, **how) for _ in range(run.answers)]

    async def whole(self) -> ChatCompletion:
        """Return all answers."""
        texts = [""] * self._run.answers
        calls: list[list[SaidCall]] = [[] for _ in texts]
        reasons = ["length"] * len(texts)
        logprobs: list[list[ChatLogprobs]] = [[] for _ in texts]
        async for pieces in self._run.pieces():
            for piece in pieces:
                i = piece.index
                text, called = self._readers[i].push(piece)
                texts[i] += text
                calls[i] += called
                if (entry := self._logprobs(piece)) is not None:
                    logprobs[i].append(entry)
                if piece.finish_reason is not None:
                    reasons[i] = self._readers[i].reason(piece.finish_reason)
        choices = [
            Choice(
                index=i,
                message=AnswerMessage(
                    content=texts[i] if texts[i] or not calls[i] else None,
                    tool_calls=_without_index(calls[i]) or None,
                ),
                finish_reason=reasons[i],
                logprobs=_whole(logprobs[i]) if self._body.logprobs else None,
                token_ids=self._run.tokens.get(i, []) if self._body.return_token_ids else None,
            )
            for i in range(len(texts))
        ]
        return ChatCompletion(
            id=self._run.id,
            created=self._run.created,
            model=self._run.model.id,
            choices=choices,
            usage=self._run.usage(),
            prompt_token_ids=self._run.asked[0][0].ids if self._body.return_token_ids else None,
            replay=await self._run.replay() if self._body.return_replay else None,
        )

    async def events(self) -> AsyncIterator[str]:
        """Yield the events of a stream."""
        begun = [
            ChunkChoice(index=i, delta=Delta(role="assistant", content="")) for i in range(self._run.answers)
        ]
        ids = self._run.asked[0][0].ids if self._body.return_token_ids else None
        yield event(self._chunk(begun, prompt_token_ids=ids))
        async for pieces in self._run.pieces():
            yield "".join(said for piece in pieces for said in self._events_of(piece))
        if self._body.return_replay:
            yield event(self._chunk([], replay=await self._run.replay()))
        if self._body.usage_at_end:
            yield event(self._chunk([], usage=self._run.usage()))
        yield DONE

    def _events_of(self, piece: Piece) -> list[str]:
        reader, choices = self._readers[piece.index], list[ChunkChoice]()
        text, calls = reader.push(piece)
        delta = Delta(content=text or None, tool_calls=calls or None)
        ids = list(piece.ids) if self._body.return_token_ids and piece.ids else None
        logprobs = self._logprobs(piece)
        if text or calls or ids or logprobs:
            choices.append(ChunkChoice(index=piece.index, delta=delta, logprobs=logprobs, token_ids=ids))
        if piece.finish_reason is not None:
            reason = reader.reason(piece.finish_reason)
            choices.append(ChunkChoice(index=piece.index, delta=Delta(), finish_reason=reason))
        return [event(self._chunk([choice])) for choice in choices]

    def _chunk(self, choices: list[ChunkChoice], **more: object) -> ChatChunk:
        run = self._run
        return ChatChunk(id=run.id, created=run.created, model=run.model.id, choices=choices, **more)  # type: ignore[arg-type]

    def _logprobs(self, piece: Piece) -> ChatLogprobs | None:
        if self._body.likeliest is None or not piece.logprobs:
            return None
        return of_chat(self._run.service.asker.tokenizer, piece, self._body.likeliest)


def _whole(parts: list[ChatLogprobs]) -> ChatLogprobs:
    return ChatLogprobs(content=[entry for part in parts for entry in part.content or ()])


def _without_index(calls: list[SaidCall]) -> list[SaidCall]:
    """Return calls as a whole answer lists them: only a stream numbers them."""
    return [call.model_copy(update={"index": None}) for call in calls]
