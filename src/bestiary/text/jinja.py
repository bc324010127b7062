"""Rendering of Jinja chat templates, programs from strangers, in a child process that can be killed.

jinja2's sandbox keeps a template from Python's internals; it does not keep it from running for ever or from
filling the memory (two nested ranges, `'a' * 10**9`). So templates run in one small process under limits
(`jinja_worker`), and this side holds the clock. The process starts when first needed, is reused, and is
replaced when it had to be killed.
"""

from __future__ import annotations

import datetime
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bestiary.errors import RequestError, TemplateError

TEMPLATE_LIMIT = 256 << 10
"""Characters a template may have; the longest published ones have about 30,000."""
OUTPUT_FACTOR, OUTPUT_FLOOR = 4, 64 << 10
"""A rendered text may have 4 characters for each one of the request, and 65,536 more."""

_WORKER = Path(__file__).with_name("jinja_worker.py")
_HEADER = 4
_START_SECONDS = 15.0
# All that a process may need to start: no token and no key of the environment gets in there.
_ENVIRONMENT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")


class _LateError(Exception):
    """The deadline passed."""


class _GoneError(Exception):
    """The process at the other end of the pipes is gone."""


class Sandbox:
    """A child process that renders Jinja templates within limits of time, memory and output.

    Safe to share between threads, whose requests wait for one another, and to have at a fork: the new process
    starts a child of its own.

    Args:
        seconds: wall-clock time of one request, from the moment the process is ready for it.
        memory: bytes of address space for it (RLIMIT_AS), on systems that limit that.
    """

    def __init__(self, *, seconds: float = 1.0, memory: int = 256 << 20) -> None:
        self.seconds, self.memory = seconds, memory
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._at_exit: weakref.finalize[[subprocess.Popen[bytes]], Any] | None = None
        _sandboxes.add(self)

    def render(
        self, template: str, context: Mapping[str, Any], *, now: datetime.datetime | None = None
    ) -> str:
        """Render a template with these variables (JSON data), as of this local time.

        Raises:
            RequestError: the template itself refused the conversation (raise_exception), in these words.
            TemplateError: the template is no valid Jinja, tried what it may not do, or ran past a limit.
        """
        if len(template) > TEMPLATE_LIMIT:
            raise TemplateError(
                f"chat template of {len(template)} characters: {TEMPLATE_LIMIT} are the limit"
            )
        data = json.dumps(context, ensure_ascii=False)
        limit = OUTPUT_FACTOR * (len(template) + len(data)) + OUTPUT_FLOOR
        now = now or datetime.datetime.now()
        fields = [now.year, now.month, now.day, now.hour, now.minute, now.second, now.microsecond]
        head = json.dumps({"template": template, "now": fields, "limit": limit}, ensure_ascii=False)
        # A character takes at most 6 bytes in JSON; a longer answer is none of the worker's.
        reply = self._ask(f'{head[:-1]}, "context": {data}}}'.encode(), 6 * limit + 4096)
        if "text" in reply:
            return str(reply["text"])
        raise _error(str(reply.get("kind")), str(reply.get("error")))

    @property
    def pid(self) -> int | None:
        """The child process, while there is one."""
        return None if self._process is None else self._process.pid

    def close(self) -> None:
        """End the child process; the next `render` starts another."""
        with self._lock:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # One request.

    def _ask(self, request: bytes, limit: int) -> dict[str, Any]:
        with self._lock:
            try:
                reply = self._exchange(request, limit)
                if reply is None:  # killed from outside, so once more
                    reply = self._exchange(request, limit)
            except BaseException:  # also Ctrl-C: a half-read answer must not be taken for the next one
                self._stop()
                raise
            if reply is None or reply.get("kind") == "limit":
                self._stop()
        if reply is None:
            raise TemplateError("chat template: its process was killed, twice; is the machine out of memory?")
        return reply

    def _exchange(self, request: bytes, limit: int) -> dict[str, Any] | None:
        """Send a request and return the answer; None when something else killed the process."""
        process = self._ready()
        deadline = time.monotonic() + self.seconds
        try:
            _send(process, request, deadline)
            reply = json.loads(_receive(process, limit, deadline))
        except _LateError:
            raise TemplateError(f"chat template: stopped, it ran longer than {self.seconds:g} s") from None
        except _GoneError:
            code = _end(process)
            self._process = None
            if code == -signal.SIGKILL:
                return None
            raise TemplateError(f"chat template: stopped, its process ended with status {code}") from None
        except (ValueError, RecursionError) as error:
            raise TemplateError("chat template: its process gave no proper answer") from error
        return reply if isinstance(reply, dict) else {}

    # The process.

    def _ready(self) -> subprocess.Popen[bytes]:
        """Return a process that waits for a request."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._stop()
        self._process = process = self._start()
        self._at_exit = weakref.finalize(self, _end, process)
        try:
            for end in _pipes(process):
                os.set_blocking(end, False)
            _receive(process, 64, time.monotonic() + _START_SECONDS)
        except (_LateError, _GoneError) as error:
            self._stop()
            raise TemplateError(f"chat template: {sys.executable} did not start, to render it in") from error
        return process

    def _start(self) -> subprocess.Popen[bytes]:
        # -I: nothing from the current directory or from PYTHON* variables.
        command = [sys.executable, "-I", "-X", "utf8", str(_WORKER)]
        # The worker's own alarm is for templates whose parent died; it rings well after this side's clock.
        command += [str(self.memory), str(int(self.seconds) + 2)]
        try:
            return subprocess.Popen(
                command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                start_new_session=True,
            )
        except OSError as error:
            raise TemplateError(
                f"chat template: no process can be started to render it in: {error}"
            ) from error

    def _stop(self) -> None:
        if self._at_exit is not None:
            self._at_exit()  # runs once
        self._process = self._at_exit = None

    def _forget(self) -> None:
        """After a fork: the child process and the lock are the parent's."""
        self._lock = threading.Lock()
        if self._process is not None and self._at_exit is not None:
            self._at_exit.detach()
            self._process.returncode = 0  # not ours to wait for
            _close(self._process)
        self._process = self._at_exit = None


def _error(kind: str, text: str) -> RequestError | TemplateError:
    """Make the error for an answer that holds no texts."""
    text = "".join(c if c.isprintable() else " " for c in text[:500])
    if kind == "raised":
        return RequestError(f"the chat template refuses this conversation: {text}")
    reasons = {
        "refused": "it tried what templates may not do",
        "syntax": "it is not valid Jinja",
        "limit": "stopped at a limit of memory, depth or length",
    }
    return TemplateError(f"chat template: {reasons.get(kind, 'it failed')}: {text}")


# Pipes with a deadline.


def _pipes(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    if process.stdin is None or process.stdout is None:
        raise _GoneError
    return process.stdin.fileno(), process.stdout.fileno()


def _wait(end: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(end, event)
    while (left := deadline - time.monotonic()) > 0:
        # In short pieces: the system may give a Ctrl-C to another thread, and Python raises it here between
        # calls.
        if poll.poll(min(left, 0.1) * 1000):
            return
    raise _LateError


def _send(process: subprocess.Popen[bytes], body: bytes, deadline: float) -> None:
    end, _ = _pipes(process)
    data = memoryview(len(body).to_bytes(_HEADER, "big") + body)
    while data:
        _wait(end, select.POLLOUT, deadline)
        try:
            data = data[os.write(end, data) :]
        except BrokenPipeError:
            raise _GoneError from None


def _receive(process: subprocess.Popen[bytes], limit: int, deadline: float) -> bytes:
    _, end = _pipes(process)
    data, wanted = bytearray(), _HEADER
    while len(data) < wanted:
        _wait(end, select.POLLIN, deadline)
        chunk = os.read(end, min(wanted - len(data), 1 << 20))
        if not chunk:
            raise _GoneError
        data += chunk
        if wanted == _HEADER == len(data):
            wanted += int.from_bytes(data, "big")
            if wanted > limit + _HEADER:
                raise TemplateError("chat template: its process gave no proper answer")
    return bytes(data[_HEADER:])


def _close(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def _end(process: subprocess.Popen[bytes]) -> int:
    """Kill a process, leave no zombie, and return its status."""
    _close(process)
    process.kill()
    return process.wait()


# Every sandbox, for the fork; and the one that all templates share.

_sandboxes: weakref.WeakSet[Sandbox] = weakref.WeakSet()


def _after_fork() -> None:
    for sandbox in list(_sandboxes):
        sandbox._forget()


os.register_at_fork(after_in_child=_after_fork)
shared = Sandbox()
