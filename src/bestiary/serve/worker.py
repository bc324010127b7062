"""The process that holds the model: it reads jobs, lets the engine take a step, and writes what came of it.

`python -m bestiary.serve.worker`, started by the front (link). Its first message says what to open. When its
input ends, the front is gone, and so is it; signals are the front's to hear.

What goes wrong with one request is that request's alone, also where it is no Exception: the tokenizers'
PanicException is a BaseException, and so a boundary for Exception lets it through.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from ..errors import BestiaryError
from ..run.asking import Asker
from . import wire
from .jobs import facts_message, job_of, message_of, reading_of, told
from .journal import Journal
from .wire import Message

if TYPE_CHECKING:
    from ..engine import Engine, Update

_PROGRESS_SECONDS, _STATS_SECONDS = 0.2, 0.1
_NEVER_CAUGHT = (KeyboardInterrupt, SystemExit, GeneratorExit)


class Pipe:
    """The worker's end of the wire, whose reads can be asked not to wait."""

    def __init__(self, source: int, sink: int) -> None:
        self._source, self._sink, self._frames = source, sink, wire.Frames()
        os.set_blocking(source, False)

    def read(self, *, wait: bool) -> list[Message]:
        """Return the messages that have come; at least one where it waits. Raises EOFError at the end."""
        found: list[Message] = []
        while True:
            ready, _, _ = select.select([self._source], [], [], None if wait and not found else 0)
            if not ready:
                return found
            data = os.read(self._source, 1 << 20)
            if not data:
                raise EOFError
            found.extend(self._frames.feed(data))

    def write(self, message: Message) -> None:
        """Write a message, waiting for the other side. Raises BrokenPipeError where there is none."""
        data = memoryview(wire.pack(message))
        while data:
            try:
                data = data[os.write(self._sink, data) :]
            except BlockingIOError:  # the front's ends are non-blocking, and a terminal's may be shared
                select.select([], [self._sink], [])


@dataclass
class _Open:
    """A job of the engine. number, name: the front's. first: the index of its first answer. left: to end."""

    number: int
    name: str
    first: int
    left: int


class Worker:
    """The engine's one loop, and whose its jobs are."""

    def __init__(self, pipe: Pipe, engine: Engine, asker: Asker, journal: Journal | None) -> None:
        self._pipe, self._engine, self._asker, self._journal = pipe, engine, asker, journal
        self._jobs: dict[int, _Open] = {}  # by the engine's number
        self._numbers: dict[int, int] = {}  # the front's number -> the engine's
        self._told = 0.0
        self._idle_told = False

    def run(self) -> None:
        """Work until the front goes away."""
        while True:
            for message in self._pipe.read(wait=not self._engine.busy):
                self._take(message)
            if self._engine.busy:
                self._idle_told = False
                self._step()
            self.tell_stats()

    # What the front asks.

    def _take(self, message: Message) -> None:
        number = int(message.get("number", -1))
        try:
            match message.get("kind"):
                case "job":
                    self._add(number, message)
                case "abort":
                    self._abort(number)
                case "attach":
                    self._engine.attach(message["name"], message["path"])
                    self._pipe.write({"kind": "done", "number": number})
                case "detach":
                    self._engine.detach(message["name"])
                    self._pipe.write({"kind": "done", "number": number})
        except _NEVER_CAUGHT:
            raise
        except BaseException as error:  # noqa: BLE001 (the boundary of one request)
            self._fail(number, error)

    def _add(self, number: int, message: Message) -> None:
        from ..engine import Reading

        job = reading_of(message) if "texts" in message else job_of(message, self._asker)
        mine = self._engine.add(job)
        answers = 1 if isinstance(job, Reading) else job.params.n
        self._jobs[mine] = _Open(number, str(message.get("name", "")), int(message.get("first", 0)), answers)
        self._numbers[number] = mine
        self._pipe.write({"kind": "accepted", "number": number})

    def _abort(self, number: int) -> None:
        if (mine := self._numbers.pop(number, None)) is not None:
            self._engine.abort(mine)
            self._forget(mine)
            self._idle_told = False

    # What the engine gives.

    def _step(self) -> None:
        try:
            updates = self._engine.step()
        except _NEVER_CAUGHT:
            raise
        except BaseException as error:  # noqa: BLE001 (which request it was is not known: all that are open)
            self._fail_all(error)
            return
        told = [said for update in updates if (said := self._said(update)) is not None]
        if self._journal is not None:
            self._journal.flush()
        if told:
            self._pipe.write({"kind": "updates", "updates": told})

    def _said(self, update: Update) -> Message | None:
        """Return an update as the front reads it; None where the front has let go of the job."""
        if (job := self._jobs.get(update.job)) is None:
            return None
        said = message_of(update, job.number, job.first)
        chunk = update.chunk
        if chunk is not None and self._journal is not None and chunk.ids:
            self._journal.add(job.name, job.first + chunk.index, list(chunk.ids))
        if chunk is not None and chunk.finish_reason is not None:
            job.left -= 1
            if self._journal is not None:
                self._journal.end(job.name, job.first + chunk.index)
        if update.error is not None or update.vectors is not None or job.left == 0:
            self._forget(update.job)
        return said

    def _forget(self, mine: int) -> None:
        if (job := self._jobs.pop(mine, None)) is not None:
            self._numbers.pop(job.number, None)

    # What goes wrong.

    def _fail(self, number: int, error: BaseException) -> None:
        self._pipe.write({"kind": "error", "number": number, **told(error)})

    def _fail_all(self, error: BaseException) -> None:
        for mine, job in list(self._jobs.items()):
            self._engine.abort(mine)
            self._forget(mine)
            self._fail(job.number, error)

    def tell_stats(self) -> None:
        """Write the engine's counts: a few times a second, and once when it falls idle."""
        now = time.monotonic()
        if self._engine.busy and now - self._told < _STATS_SECONDS:
            return
        if not self._engine.busy and self._idle_told:
            return
        self._told, self._idle_told = now, not self._engine.busy
        self._pipe.write({"kind": "stats", "stats": asdict(self._engine.stats())})


def main() -> int:
    """Open what the first message says, and work."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    pipe = Pipe(os.dup(0), os.dup(1))
    # What a library prints must not get between the frames.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    try:
        opening = pipe.read(wait=True)[0]
        worker = _opened(pipe, opening)
        worker.run()
    except (EOFError, BrokenPipeError):
        return 0
    except (BestiaryError, OSError, MemoryError) as error:
        pipe.write({"kind": "failed", **told(error)})
        return 1
    return 0


def _opened(pipe: Pipe, opening: Message) -> Worker:
    """Return the worker of a model, and tell the front of what a prompt must know of it."""
    from ..engine import open_engine
    from ..run.llm import LLM

    how = {name: opening[name] for name in ("device", "dtype", "threads")}
    asked = {name: opening[name] for name in ("context", "chat_template")}
    llm = LLM(opening["model"], progress=_Progress(pipe), **how, **asked)
    engine = open_engine(
        llm,
        tokens=opening["tokens"],
        batch=opening["streams"],
        chunk=opening["chunk"],
        deterministic=opening["deterministic"],
        share=opening["share"],
        cache_dtype=opening["cache_dtype"],
        guesses=opening["guesses"],
        adapters=bool(opening["adapters"]) or opening["mixes"],
        draft=None if opening["draft"] is None else LLM(opening["draft"], **how),
    )
    asker = Asker(llm.tokenizer, llm.template, replace(llm.asker.facts, room=engine.room))
    for name, path in opening["adapters"].items():
        engine.attach(name, path)
    journal = Journal(opening["journal"]) if opening["journal"] else None
    worker = Worker(pipe, engine, asker, journal)
    worker.tell_stats()  # an idle worker says nothing until it is asked for something
    pipe.write({"kind": "ready", "path": str(llm.path), "facts": facts_message(asker.facts)})
    return worker


class _Progress:
    """Tells the front how much of the weights was read, a few times a second."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe, self._told = pipe, 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._told >= _PROGRESS_SECONDS or done == total:
            self._told = now
            self._pipe.write({"kind": "loading", "done": done, "total": total})


if __name__ == "__main__":
    sys.exit(main())
