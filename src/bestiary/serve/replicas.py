"""Several workers behind one front, each with the model: a request goes to one, an adapter to all.

A worker that dies takes its own streams with it; while it is started again the others get what comes. The
front is ready as long as one of them is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ..run import threads
from .link import Link, State, UnavailableError
from .prefixes import Prefixes, names
from .settings import Opening
from .streams import Stream
from .wire import Message


@dataclass(frozen=True)
class Health:
    """How one replica is. stats: the engine's counts, none while there is no worker."""

    ready: bool
    restarts: int
    stats: Mapping[str, int]


class Workers(Protocol):
    """Who computes: what the front asks, wherever the models are."""

    @property
    def state(self) -> State:
        """Whether requests can be computed, and why not."""

    @property
    def adapters(self) -> Mapping[str, str]:
        """The adapters that can be asked for, and their folders."""

    def replicas(self) -> Mapping[str, Health]:
        """Return how each replica is, by its name."""

    def begin(self) -> None:
        """Start them."""

    async def opened(self) -> None:
        """Wait until requests can be computed. Raises BestiaryError when they will never be."""

    async def close(self) -> None:
        """End them, and every stream."""

    def submit(self, jobs: Sequence[tuple[Message, int]]) -> Stream:
        """Hand over the jobs of one request, each with how many answers it has. Raises UnavailableError."""

    def lose(self, why: str) -> None:
        """End every open stream with an error, and its jobs."""

    async def attach(self, name: str, path: str) -> None:
        """Load an adapter everywhere, or nowhere. Raises BestiaryError; UnavailableError."""

    async def detach(self, name: str) -> None:
        """Unload an adapter everywhere. Raises as attach does."""


class Replicas:
    """`count` workers on this machine.

    progress: called with (bytes done, bytes in all) of all of them while weights are read. ready: called with
    the first words of each worker each time that one is ready.
    """

    def __init__(
        self,
        opening: Opening,
        count: int = 1,
        *,
        progress: Callable[[int, int], None] = lambda done, total: None,
        ready: Callable[[Message], None] = lambda message: None,
    ) -> None:
        self._read = [(0, 0)] * count
        self._progress, self._told = progress, ready
        self._prefixes: Prefixes[int] = Prefixes(max(1, opening.streams // 4))
        self._links = [
            Link(one, progress=partial(self._loading, place), ready=partial(self._ready, place))
            for place, one in enumerate(openings(opening, count))
        ]
        self._turn = 0

    @property
    def state(self) -> State:
        """That of the best of them."""
        found = {link.state for link in self._links}
        return next((state for state in _BEST if state in found), "closed")

    @property
    def adapters(self) -> Mapping[str, str]:
        """The adapters that all have."""
        first, *rest = (link.adapters for link in self._links)
        return {name: path for name, path in first.items() if all(name in one for one in rest)}

    def replicas(self) -> Mapping[str, Health]:
        """Return how each one is, by its number."""
        return {
            str(place): Health(link.state == "ready", link.restarts, link.stats)
            for place, link in enumerate(self._links)
        }

    def begin(self) -> None:
        """Start the first workers."""
        for link in self._links:
            link.begin()

    async def opened(self) -> None:
        """Wait for the first workers. Raises FailedError when one cannot be opened."""
        await asyncio.gather(*(link.opened() for link in self._links))

    async def close(self) -> None:
        """End the workers, and every stream that is still open."""
        await asyncio.gather(*(link.close() for link in self._links))

    def lose(self, why: str) -> None:
        """End every open stream with an error, and its jobs."""
        for link in self._links:
            link.lose(why)

    def submit(self, jobs: Sequence[tuple[Message, int]]) -> Stream:
        """Hand each job of a request to a worker; what comes of them comes in one stream.

        Raises UnavailableError while there is no worker.
        """
        placed: dict[int, tuple[Link, Message]] = {}
        answers: dict[int, int] = {}
        loads = self._loads()
        for message, count in jobs:
            place = self._place(message, loads)
            loads[place] += count
            self._turn += 1
            number = self._turn * len(self._links) + place  # tells whose it is
            placed[number], answers[number] = (self._links[place], message), count
        stream = Stream(answers, self._let_go)
        for number, (link, message) in placed.items():
            link.put(number, message, stream)
        return stream

    async def attach(self, name: str, path: str) -> None:
        """Load an adapter in all workers, or in none.

        Raises BestiaryError in a worker's words, UnavailableError while one of them is not ready.
        """
        await self._everywhere(lambda link: link.attach(name, path), lambda link: _detached(link, name))

    async def detach(self, name: str) -> None:
        """Unload an adapter from all workers, or from none. Raises as attach does."""
        path = self._links[0].adapters[name]
        await self._everywhere(lambda link: _detached(link, name), lambda link: _attached(link, name, path))

    async def _everywhere(self, do: _Act, undo: _Act) -> None:
        """Do this to all workers. Where one refuses it is undone at the others, and its refusal raised."""
        for link in self._links:
            if link.state != "ready":
                raise UnavailableError(link.state)
        done = await asyncio.gather(*map(do, self._links), return_exceptions=True)
        faults = [fault for fault in done if fault is not None]
        if faults:
            await asyncio.gather(
                *(undo(link) for link, fault in zip(self._links, done, strict=True) if fault is None)
            )
            raise faults[0]

    def _loads(self) -> dict[int, int]:
        loads = {place: link.load for place, link in enumerate(self._links) if link.state == "ready"}
        if not loads:
            raise UnavailableError(self.state)
        return loads

    def _place(self, message: Message, loads: Mapping[int, int]) -> int:
        """Return the number of the worker for a job. Texts to embed share nothing."""
        pages = names(message.get("prompt", ()), salt=message["salt"], adapter=message["adapter"])
        place = self._prefixes.choose(pages, loads)
        self._prefixes.remember(pages, place)
        return place

    def _let_go(self, number: int) -> None:
        self._links[number % len(self._links)].let_go(number)

    def _loading(self, place: int, done: int, total: int) -> None:
        self._read[place] = (done, total)
        self._progress(sum(done for done, _ in self._read), sum(total for _, total in self._read))

    def _ready(self, place: int, message: Message) -> None:
        self._prefixes.forget(place)
        self._told(message)


_Act = Callable[[Link], Coroutine[Any, Any, None]]
_BEST: tuple[State, ...] = ("ready", "loading", "restarting")


def openings(opening: Opening, count: int) -> list[Opening]:
    """Return how each of `count` workers on this machine opens the model.

    They share the cores, and each takes a GPU of its own as far as there are. Each has a journal of its own.
    """
    if count == 1:
        return [opening]
    each = opening.threads or max(1, threads.available() // count)
    devices = _devices(opening.device)
    return [
        replace(
            opening,
            threads=each,
            device=devices[place % len(devices)],
            journal=None if opening.journal is None else _numbered(opening.journal, place),
        )
        for place in range(count)
    ]


def _devices(device: str) -> list[str]:
    if device not in ("auto", "cuda"):
        return [device]
    import torch

    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] or [device]


def _numbered(journal: str, place: int) -> str:
    path = Path(journal)
    return str(path.with_name(f"{path.name}.{place}"))


async def _detached(link: Link, name: str) -> None:
    """Unload an adapter from a worker; one that died meanwhile is started without it."""
    try:
        await link.detach(name)
    except UnavailableError:
        link.adapters.pop(name, None)


async def _attached(link: Link, name: str, path: str) -> None:
    """Load an adapter again; a worker that died meanwhile is started with it."""
    try:
        await link.attach(name, path)
    except UnavailableError:
        link.adapters[name] = path
