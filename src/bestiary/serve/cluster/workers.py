"""The front's side of replicas elsewhere: each job is one streamed call through a deployment handle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from ...errors import RequestError
from ..link import State, UnavailableError
from ..replicas import Health
from ..streams import Stream
from ..wire import Message

# How many replicas a job is offered, and seconds from one look at how many there are to the next.
_TRIES, _LOOK = 3, 1.0
_LOST = "the replica that computed this answer ended"
_NOBODY = "no replica could take this request; ask again in a moment"


class Deployed:
    """The replicas of a deployment.

    handle: of the deployment of Replica. running: returns how many replicas run; called beside the loop.
    ready: called with a worker's first words.
    """

    def __init__(
        self,
        handle: Any,
        *,
        adapters: Mapping[str, str],
        running: Callable[[], int],
        ready: Callable[[Message], None],
    ) -> None:
        self.state: State = "loading"
        self.adapters = adapters
        self._facts, self._answer = handle.facts, handle.options(stream=True).answer
        self._running, self._ready = running, ready
        self._streams: dict[int, Stream] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._number = 0
        self._heard: dict[str, Health] = {}  # the last one heard of at the end
        self._count = 0
        self._watching: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[None] | None = None

    def replicas(self) -> Mapping[str, Health]:
        """Return how each replica was when it last answered."""
        return self._heard

    def begin(self) -> None:
        """Wait for the first replica beside all else."""
        self._opened = asyncio.get_running_loop().create_future()
        self._watching = asyncio.create_task(self._watch(self._opened))

    async def opened(self) -> None:
        """Wait until a replica is ready."""
        if self._opened is not None:
            await asyncio.shield(self._opened)

    async def close(self) -> None:
        """End every stream; the replicas are Ray Serve's to end."""
        self.state = "closed"
        self.lose("the server is stopping")
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching

    def lose(self, why: str) -> None:
        """End every open stream with an error, and its jobs."""
        for stream in set(self._streams.values()):
            stream.fail("lost", why)

    async def attach(self, name: str, path: str) -> None:
        """Refuse: a replica that is started later would be without it."""
        raise RequestError("adapters are named when the application is deployed: --adapter NAME=PATH")

    async def detach(self, name: str) -> None:
        """Refuse, as attach does."""
        await self.attach(name, "")

    def submit(self, jobs: Sequence[tuple[Message, int]]) -> Stream:
        """Hand over the jobs of one request. Raises UnavailableError while there is no replica."""
        if self.state != "ready":
            raise UnavailableError(self.state)
        numbered = {self._number + i: job for i, job in enumerate(jobs, 1)}
        self._number += len(jobs)
        stream = Stream({number: answers for number, (_, answers) in numbered.items()}, self._let_go)
        for number, (job, answers) in numbered.items():
            self._streams[number] = stream
            self._tasks[number] = asyncio.create_task(self._follow(number, job, answers, stream))
        return stream

    def _let_go(self, number: int) -> None:
        """A reader wants no more: the call is cancelled, and the replica frees what its job holds."""
        self._streams.pop(number, None)
        if (task := self._tasks.pop(number, None)) is not None:
            task.cancel()

    async def _follow(self, number: int, job: Message, answers: int, stream: Stream) -> None:
        avoid: list[str] = []
        for _ in range(_TRIES):
            why = await self._told(number, self._answer.remote(job, answers, avoid), stream, avoid)
            if why is None or number not in self._tasks:
                break
        else:
            why = ("lost", _NOBODY)
        # Before the stream fails: to let go of a job ends its task, which is this one.
        self._tasks.pop(number, None)
        self._streams.pop(number, None)
        if why is not None:
            stream.fail(*why)

    async def _told(
        self, number: int, response: Any, stream: Stream, avoid: list[str]
    ) -> tuple[str, str] | None:
        """Hear one call to its end. Return None when its answers are whole; else the error.

        The job is still in self._tasks where another replica may be asked.
        """
        accepted = False
        try:
            async for said in response:
                self._hear(said)
                if "unavailable" in said:
                    avoid.append(said["replica"])
                    return "lost", _NOBODY
                if "error" in said:
                    del self._tasks[number]
                    return said["error"], said["message"]
                if "accepted" in said:
                    accepted = True
                    stream.accept(number)
                for one in said.get("said", ()):
                    if stream.left(number):
                        stream.add(number, one)
        except (RayError, RayServeException):
            pass  # its words are of Ray's inner life; Ray's own log has them
        finally:
            response.cancel()
        if not stream.left(number):
            return None
        if accepted:
            del self._tasks[number]
        return "lost", _LOST

    # What is known of the replicas.

    def _hear(self, said: Message) -> None:
        self._heard.pop(said["replica"], None)
        self._heard[said["replica"]] = Health(said["ready"], said["restarts"], said["stats"])
        while len(self._heard) > max(1, self._count):
            del self._heard[next(iter(self._heard))]

    async def _watch(self, opened: asyncio.Future[None]) -> None:
        self._ready(await self._facts.remote())
        self._count, self.state = 1, "ready"
        opened.set_result(None)
        while True:
            with suppress(RayError, RayServeException, KeyError):
                self._count = await asyncio.to_thread(self._running)
                self.state = "ready" if self._count else "restarting"
            await asyncio.sleep(_LOOK)
