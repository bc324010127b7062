"""What the routes ask: one model's names, its prompts, the worker, and the counts of all of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from .. import hub
from ..errors import BestiaryError
from ..run import published
from ..run.asking import Asker, Facts, Request
from ..run.params import SamplingParams
from ..run.pooling import Pooling, open_pooling
from ..run.tuned import Tuning
from . import prompts, weights
from .errors import APIError
from .gate import Gate
from .jobs import facts_of, job_message
from .link import UnavailableError
from .logs import Log
from .metrics import Metrics
from .replicas import Replicas, Workers
from .settings import Settings
from .streams import Stream
from .wire import Message

T = TypeVar("T")
# Threads that write prompts: as many as may be in a tokenizer at once without taking the cores of the model.
_THREADS = 2
_PUBLISHED = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "no_repeat_ngram_size",
)


@dataclass(frozen=True)
class Named:
    """A model by the name that it was asked by. adapter: on it, None for the model itself."""

    id: str
    adapter: str | None = None


@dataclass
class Service:
    """One server: its settings, its workers and what it knows of the model.

    workers: makes those who compute; None is replicas on this machine.
    """

    settings: Settings
    progress: Callable[[int, int], None] = lambda done, total: None
    began: int = field(default_factory=lambda: int(time.time()))
    stopping: bool = False
    share: float = 0.0  # of the weights that are read
    workers: Callable[[Service], Workers] | None = None

    def __post_init__(self) -> None:
        self.metrics = Metrics()
        self.log = Log(prompts=self.settings.log_prompts, quiet=self.settings.quiet)
        self.gate = Gate(self.settings.opening.streams * self.settings.replicas, self.settings.queue)
        self.link: Workers = (self.workers or _replicas)(self)
        self.path: Path | None = None
        self.defaults: dict[str, Any] = {}
        self.weights: str | None = None
        self._asker: Asker | None = None
        self._pooling: Pooling | None = None
        self._tuning: asyncio.Future[None] | None = None
        self._hashing: asyncio.Future[None] | None = None
        self._closed = False
        self._pool = ThreadPoolExecutor(_THREADS, "prompts")
        self._facts: Facts | None = None

    # Its life.

    def begin(self) -> None:
        """Start the workers, and read the tokenizer meanwhile."""
        self.link.begin()
        loop = asyncio.get_running_loop()
        self._tuning = loop.run_in_executor(self._pool, self._read)

    async def opened(self) -> None:
        """Wait until requests can be answered. Raises BestiaryError when they will never be."""
        if self._tuning is not None:
            await self._tuning
        await self.link.opened()
        self._hashing = asyncio.ensure_future(asyncio.to_thread(self._hash))

    async def close(self) -> None:
        """End the workers and every stream."""
        self._closed = True
        await self.link.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _read(self) -> None:
        opening = self.settings.opening
        self.path = hub.resolve(opening.model)
        tuning = Tuning(None)
        self._tokenizer = tuning.tokenizer(self.path)
        self._template = tuning.template(self.path, self._tokenizer, opening.chat_template)
        said = published.generation(self.path) or {}
        # As vLLM does: how its authors sample a model is how it is sampled where a request says nothing.
        if said.get("do_sample") is True:
            self.defaults = {name: said[name] for name in _PUBLISHED if said.get(name) is not None}

    def _hash(self) -> None:
        if self.path is not None:
            with suppress(OSError, weights.StoppedError):
                self.weights = weights.sha256(self.path, lambda: self._closed)

    async def hashed(self) -> str | None:
        """Return the hash of the weights, once they are read."""
        if self.weights is None and self._hashing is not None:
            await asyncio.shield(self._hashing)
        return self.weights

    def loading(self, done: int, total: int) -> None:
        """Hear how many bytes of the weights are read."""
        self.share = done / total if total else 0.0
        self.progress(done, total)

    def ready(self, message: Message) -> None:
        """Hear what a worker says when it is ready."""
        self._facts = facts_of(message["facts"])

    # What it knows.

    @property
    def state(self) -> str:
        """Why a request cannot be answered now; "ok" where it can."""
        if self.stopping:
            return "stopping"
        return "ok" if self.link.state == "ready" and self._facts is not None else self.link.state

    @property
    def asker(self) -> Asker:
        """What writes prompts. Raises UnavailableError before the model is open."""
        if self._asker is None:
            if self._facts is None or self._tuning is None or not self._tuning.done():
                raise UnavailableError(self.link.state)
            self._asker = Asker(self._tokenizer, self._template, self._facts)
        return self._asker

    @property
    def names(self) -> tuple[str, ...]:
        """What the model is called, the name in answers first. A path is called by its last part."""
        given = self.settings.opening.model
        last = Path(given).name or given
        own = () if self.path is None else (self.path.name,)
        plain = last if Path(given).is_absolute() or given.startswith(("~", ".")) else given
        return tuple(dict.fromkeys((*self.settings.names, plain, last, *own)))

    def named(self, name: str | None) -> Named:
        """Return the model of this name. Raises APIError for no such."""
        if name is None or name in self.names:
            return Named(self.names[0])
        if name in self.link.adapters:
            return Named(name, name)
        known = ", ".join((self.names[0], *self.link.adapters))
        shown = name if len(name) <= 80 else f"{name[:80]}…"
        raise APIError(
            404, f"the model {shown!r} is not here; there is: {known}", param="model", code="model_not_found"
        )

    # What it does.

    async def think(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Compute beside the loop what takes long: a template, a tokenizer."""
        work = partial(function, *arguments, **named)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except (Exception, GeneratorExit):
            raise
        except BaseException as error:
            # A library of Rust panics with what is no Exception; it must not end the loop.
            if isinstance(error, KeyboardInterrupt | SystemExit | asyncio.CancelledError):
                raise
            self.log.event("defect", error=type(error).__name__)
            raise APIError(400, "the tokenizer cannot read this text", code="tokenizer_failed") from None

    def params(self, chosen: Mapping[str, Any], *, max_tokens: int | None) -> SamplingParams:
        """Return how to sample: what a request chose, over the model's own. Raises RequestError."""
        return SamplingParams(**{"max_tokens": max_tokens, **self.defaults, **chosen})

    def start(
        self, asked: Sequence[tuple[Request, SamplingParams]], *, model: Named, salt: str, name: str
    ) -> Stream:
        """Hand requests to the worker; all of their answers come in one stream, numbered through.

        name: the answer's id. Raises APIError and RequestError for what can never run.
        """
        jobs: list[tuple[Message, int]] = []
        first = 0
        for request, params in asked:
            self.asker.facts.room.left(request.ids)
            message = job_message(request, params, adapter=model.adapter, salt=salt)
            jobs.append(({**message, "name": name, "first": first}, params.n))
            first += params.n
        return self.link.submit(jobs)

    def embeddable(self, texts: Sequence[str | list[int]]) -> list[list[int]]:
        """Return the ids of texts as the model reads them to make vectors. Raises RequestError."""
        if self._pooling is None:
            self._pooling = open_pooling(self.path or Path())
        return prompts.embeddable(self.asker, self._pooling, texts)

    def read(self, texts: Sequence[Sequence[int]], *, model: Named, salt: str) -> Stream:
        """Hand texts to the worker to be read; their vectors come in one stream."""
        message = {"kind": "job", "texts": texts, "how": None, "adapter": model.adapter, "salt": salt}
        return self.link.submit([(message, 1)])

    def check(self, ability: str, what: str) -> None:
        """Raise APIError where the model cannot do this."""
        if ability not in self.asker.facts.abilities:
            can = ", ".join(self.asker.facts.abilities)
            raise APIError(400, f"{self.names[0]} cannot {what}; it can {can}", code="unsupported_by_model")


def _replicas(service: Service) -> Workers:
    settings = service.settings
    return Replicas(settings.opening, settings.replicas, progress=service.loading, ready=service.ready)


__all__ = ["BestiaryError", "Named", "Service"]
