"""One request under way: its pieces as they come, what it cost, and its end however it comes."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import fields, replace
from hashlib import sha256
from importlib.metadata import version
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest

from ..run.asking import Request
from ..run.params import SamplingParams
from .errors import APIError
from .gate import Pass
from .jobs import Piece
from .logs import Record
from .prompts import stopped, written_by
from .schemas.base import CachedDetails, Replay, Usage
from .service import Named, Service
from .sse import watched
from .streams import StreamError

T = TypeVar("T")


class Run:
    """The answers to the prompts of one request.

    id: the answer's. asked: each prompt, and how to sample its answers.
    """

    def __init__(
        self,
        service: Service,
        http: HTTPRequest,
        asked: Sequence[tuple[Request, SamplingParams]],
        *,
        model: Named,
        prefix: str,
        place: Pass,
    ) -> None:
        self.service, self.http, self.model = service, http, model
        self.id, self.created = f"{prefix}{secrets.token_hex(16)}", int(time.time())
        self.asked = [(request, _seeded(stopped(params, request))) for request, params in asked]
        self.record: Record = http.scope["state"]["record"]
        self.record.id, self.record.model = self.id, model.id
        self.tokens: dict[int, list[int]] = {}  # of each answer
        self._cached: dict[int, int] = {}
        self._place, self._last, self._ended = place, 0.0, 0
        self._gone = False
        self.record.prompt_tokens = sum(len(request.ids) for request, _ in self.asked)
        if service.settings.log_prompts:
            self.record.prompt = "\n".join(request.text or "" for request, _ in self.asked)
        salt = http.scope["state"].get("salt", "")
        self._stream = service.start(self.asked, model=model, salt=salt, name=self.id)
        service.metrics.open.inc()
        service.metrics.prompt_tokens.inc(self.record.prompt_tokens)
        self._open = True

    @property
    def answers(self) -> int:
        """How many answers there will be."""
        return sum(params.n for _, params in self.asked)

    async def accepted(self) -> None:
        """Wait until the engine has taken the request. Raises StreamError when it refuses."""
        try:
            await self._stream.accepted()
        except BaseException:
            self.close()
            raise

    async def pieces(self) -> AsyncIterator[list[Piece]]:
        """Yield what has come since the last time, a piece for each answer. Raises StreamError."""
        while pieces := await self._stream.take():
            self._count(pieces)
            yield merged(pieces)

    async def whole(self, collect: Callable[[], Awaitable[T]]) -> T:
        """Return what `collect` makes of all pieces, unless the client goes away meanwhile."""
        try:
            async with watched(self.http.receive, self.close):
                await self.accepted()
                made = await collect()
                if self._gone:
                    raise ClientDisconnect
                return made
        finally:
            self.close()

    def fail(self, error: BaseException) -> None:
        """Note an error that ends a stream."""
        self.record.error = type(error).__name__
        if not isinstance(error, StreamError | APIError):
            self.service.log.event("defect", error=type(error).__name__, id=self.id)

    def close(self) -> None:
        """Want no more: what is still computed is ended, and the place is given back."""
        if self._open:
            self._open = False
            self._gone = self._ended < self.answers
            self._stream.close()
            self._place.leave()
            self.service.metrics.open.dec()
            self.record.new_tokens = sum(map(len, self.tokens.values()))
            self.record.cached_tokens = sum(self._cached.values())
            self.service.metrics.reused_tokens.inc(self.record.cached_tokens)

    def _count(self, pieces: Sequence[Piece]) -> None:
        now, metrics = time.monotonic(), self.service.metrics
        if self.record.first is None:
            self.record.first = now - self.record.began
            metrics.first.observe(self.record.first)
        elif pieces:
            metrics.between.observe(now - self._last)
        self._last = now
        for piece in pieces:
            self.tokens.setdefault(piece.index, []).extend(piece.ids)
            # Of n answers the others share what the first computed of the prompt: that was not there before.
            prompt = self._prompt_of(piece.index)
            self._cached[prompt] = min(piece.cached, self._cached.get(prompt, piece.cached))
            metrics.new_tokens.inc(len(piece.ids))
            self._ended += piece.finish_reason is not None

    def _prompt_of(self, index: int) -> int:
        """Return which prompt an answer is to."""
        return index // self.asked[0][1].n

    def usage(self) -> Usage:
        """Return what it has cost so far."""
        prompt, new = self.record.prompt_tokens or 0, sum(map(len, self.tokens.values()))
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=new,
            total_tokens=prompt + new,
            prompt_tokens_details=CachedDetails(cached_tokens=sum(self._cached.values())),
        )

    async def replay(self) -> Replay:
        """Return all that the answers to the first prompt depend on."""
        request, params = self.asked[0]
        said = {one.name: getattr(params, one.name) for one in fields(params) if one.name != "constraint"}
        ids = ",".join(map(str, request.ids)).encode()
        return Replay(
            prompt_sha256=sha256(ids).hexdigest(),
            template=written_by(self.service.asker, request),
            weights_sha256=await self.service.hashed(),
            seed=params.seed or 0,
            params=said,
            bestiary=version("bestiary"),
            model=self.service.names[0],
            adapter=self.model.adapter,
            prompt_token_ids=request.ids,
            token_ids=[self.tokens.get(index, []) for index in range(params.n)],
            continues=request.continues,
            ends=sorted(request.ends),
        )


def merged(pieces: Sequence[Piece]) -> list[Piece]:
    """Return one piece for each answer, in the order in which they were first seen."""
    found: dict[int, Piece] = {}
    for piece in pieces:
        if (before := found.get(piece.index)) is not None:
            piece = replace(
                piece,
                text=before.text + piece.text,
                ids=before.ids + piece.ids,
                logprobs=before.logprobs + piece.logprobs,
            )
        found[piece.index] = piece
    return list(found.values())


def _seeded(params: SamplingParams) -> SamplingParams:
    """A seed is drawn here where none was given, so that an answer can tell it."""
    return params if params.seed is not None else replace(params, seed=secrets.randbits(63))
