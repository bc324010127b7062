"""The front's side of the wire: starts the worker, hands it jobs, and starts another when it dies.

A worker can die of a bad kernel, of the system's memory, of a person. Whoever waits for it is told at once,
and new requests are refused with 503 until the next one is ready.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Literal

from ..errors import BestiaryError, RequestError
from . import wire
from .settings import Opening
from .streams import Stream
from .wire import Message

State = Literal["loading", "ready", "restarting", "closed"]

# Seconds before the first new start, the longest wait, and how long a worker must live to count as well.
_FIRST_WAIT, _LONGEST_WAIT, _WELL = 0.1, 10.0, 30.0
_END_SECONDS = 2.0
# What only the front may know.
_SECRET = ("BESTIARY_API_KEY",)


class UnavailableError(Exception):
    """There is no worker to compute a request. state: why."""

    def __init__(self, state: State) -> None:
        super().__init__(f"the model is {state}")
        self.state = state


class FailedError(BestiaryError):
    """The model cannot be opened; in the worker's words."""


class Link:
    """One worker at a time, and the streams that it feeds.

    progress: called with (bytes done, bytes in all) while weights are read. ready: called with the worker's
    first words each time that one is ready.
    """

    def __init__(
        self,
        opening: Opening,
        *,
        progress: Callable[[int, int], None] = lambda done, total: None,
        ready: Callable[[Message], None] = lambda message: None,
    ) -> None:
        self.state: State = "loading"
        self.stats: dict[str, int] = {}
        self.restarts = 0
        self.adapters: dict[str, str] = dict(opening.adapters)
        self._opening, self._progress, self._ready = opening, progress, ready
        self._streams: dict[int, Stream] = {}
        self._replies: dict[int, asyncio.Future[None]] = {}
        self._asked = 0
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[None] | None = None

    async def open(self) -> None:
        """Start the first worker and wait until it is ready. Raises FailedError when it cannot be."""
        self.begin()
        await self.opened()

    def begin(self) -> None:
        """Start the first worker."""
        self._opened = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._supervise())

    async def opened(self) -> None:
        """Wait for the first worker. Raises FailedError when it cannot be opened."""
        if self._opened is not None:
            await asyncio.shield(self._opened)

    async def close(self) -> None:
        """End the worker, and every stream that is still open."""
        self.state = "closed"
        if self._process is not None:
            # What it has to keep, the journal, is written with every step; to wait for it would lose time.
            with suppress(ProcessLookupError):
                self._process.kill()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._end()
        self._lose("the server is stopping")

    @property
    def pid(self) -> int | None:
        """The worker's process, while there is one."""
        return None if self._process is None else self._process.pid

    @property
    def load(self) -> int:
        """How many answers are under way here."""
        return sum(stream.left(number) for number, stream in self._streams.items())

    def put(self, number: int, job: Message, stream: Stream) -> None:
        """Hand a job to the worker. number: of the job, which only this one has; it is above 0.

        Raises UnavailableError while there is no worker.
        """
        self._send({**job, "number": number})
        self._streams[number] = stream

    def let_go(self, number: int) -> None:
        """A reader wants no more: the worker frees what its job holds."""
        if self._streams.pop(number, None) is not None:
            with suppress(UnavailableError):
                self._send({"kind": "abort", "number": number})

    async def attach(self, name: str, path: str) -> None:
        """Load an adapter. Raises BestiaryError in the worker's words, UnavailableError without one."""
        await self._ask({"kind": "attach", "name": name, "path": path})
        self.adapters[name] = path

    async def detach(self, name: str) -> None:
        """Unload an adapter. Raises as attach does."""
        await self._ask({"kind": "detach", "name": name})
        self.adapters.pop(name, None)

    async def _ask(self, message: Message) -> None:
        self._asked -= 1  # jobs are numbered upwards
        reply = self._replies[self._asked] = asyncio.get_running_loop().create_future()
        self._send({**message, "number": self._asked})
        await reply

    def _send(self, message: Message) -> None:
        if self.state != "ready" or self._process is None or self._process.stdin is None:
            raise UnavailableError(self.state)
        self._process.stdin.write(wire.pack(message))

    # The worker's life.

    async def _supervise(self) -> None:
        wait = _FIRST_WAIT
        while True:
            began = time.monotonic()
            fault = await self._live()
            if self._opened is not None and not self._opened.done():
                self.state = "closed"
                self._opened.set_exception(FailedError(fault))
                return
            self.state = "restarting"
            self.restarts += 1
            wait = _FIRST_WAIT if time.monotonic() - began > _WELL else min(2 * wait, _LONGEST_WAIT)
            await asyncio.sleep(wait)

    async def _live(self) -> str:
        """Start a worker and hear it until it ends; return why it did."""
        environment = {name: value for name, value in os.environ.items() if name not in _SECRET}
        pipe = asyncio.subprocess.PIPE
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bestiary.serve.worker", stdin=pipe, stdout=pipe, env=environment
        )
        fault = "the worker ended before the model was open"
        try:
            if process.stdin is None or process.stdout is None:
                return fault
            opening = {**asdict(self._opening), "adapters": dict(self.adapters)}
            process.stdin.write(wire.pack(opening))
            while True:
                header = await process.stdout.readexactly(wire.HEADER.size)
                message = wire.unpack(await process.stdout.readexactly(wire.length(header)))
                if message.get("kind") == "failed":
                    fault = str(message["message"])
                self._hear(message)
        except (asyncio.IncompleteReadError, ConnectionError, wire.BrokenWireError):
            return fault
        except (KeyError, TypeError, ValueError) as error:  # a frame that is none of the worker's messages
            sys.stderr.write(f"worker: a message that is none: {error!r}\n")
            return fault
        finally:
            if self.state == "ready":
                # Told before its process is waited for, and no request is taken meanwhile.
                self.state = "restarting"
                self._lose("the process that computes answers ended; it is being started again")
            await self._end()

    async def _end(self) -> None:
        """End the worker that there is: it goes when its input ends, or is killed."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(_END_SECONDS):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    # What it says.

    def _hear(self, message: Message) -> None:
        match message.get("kind"):
            case "updates":
                for said in message["updates"]:
                    self._update(said)
            case "stats":
                self.stats = message["stats"]
            case "accepted":
                if (stream := self._streams.get(message["number"])) is not None:
                    stream.accept(message["number"])
            case "error":
                self._fail(message["number"], message)
            case "done":
                if (reply := self._replies.pop(message["number"], None)) is not None and not reply.done():
                    reply.set_result(None)
            case "loading":
                self._progress(message["done"], message["total"])
            case "ready":
                self.state = "ready"
                self._ready(message)
                if self._opened is not None and not self._opened.done():
                    self._opened.set_result(None)

    def _update(self, said: Mapping[str, Any]) -> None:
        number = said["n"]
        if "error" in said:
            self._fail(number, said)
        elif (stream := self._streams.get(number)) is not None and stream.add(number, said):
            del self._streams[number]

    def _fail(self, number: int, said: Mapping[str, Any]) -> None:
        if (stream := self._streams.pop(number, None)) is not None:
            stream.fail(str(said["error"]), str(said["message"]))
        if (reply := self._replies.pop(number, None)) is not None and not reply.done():
            # An adapter that cannot be loaded is the fault of who asked for it.
            kind = BestiaryError if said["error"] == "defect" else RequestError
            reply.set_exception(kind(str(said["message"])))

    def lose(self, why: str) -> None:
        """End every open stream with an error, and its jobs."""
        for stream in set(self._streams.values()):
            stream.fail("lost", why)

    def _lose(self, why: str) -> None:
        streams, self._streams = self._streams, {}
        replies, self._replies = self._replies, {}
        for stream in set(streams.values()):
            stream.fail("lost", why)
        for reply in replies.values():
            if not reply.done():
                reply.set_exception(UnavailableError(self.state))
        self.stats = {}
