"""The first compilation of a stranger's grammar, in a child process that may end over it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Of the processor, for one grammar; ordinary ones take some milliseconds. Of address space.
_SECONDS, _MEMORY = 0.3, 1 << 30
_PATIENCE = 20.0  # by the clock, for a process on a busy machine to start, or to answer
_WORKER = Path(__file__).with_name("grammar_worker.py")
TOO_COMPLEX = "too complex"  # what is said of a grammar that ended the process


class Trial:
    """A child process that compiles grammars. It starts when first needed, and again after one that ended it.

    It ends with this object, or with this process. Not for two threads at once.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._ending: weakref.finalize[[subprocess.Popen[bytes]], Any] | None = None

    def error(self, source: str, limits: Mapping[str, int]) -> str | None:
        """Return what llguidance says against a grammar, TOO_COMPLEX where it takes too much; or None."""
        request = {"source": source, "limits": limits, "seconds": _SECONDS, "memory": _MEMORY}
        line = json.dumps(request).encode() + b"\n"
        fresh = self._process is None
        reply = self._asked(line)
        if reply is None and not fresh:  # it may have ended over what others left behind
            reply = self._asked(line)
        if reply is None:
            return TOO_COMPLEX
        error: str | None = json.loads(reply)["error"]
        return error

    def close(self) -> None:
        """End the child process."""
        if self._ending is not None:
            self._ending()
        self._process = self._ending = None

    def _asked(self, line: bytes) -> bytes | None:
        """Return the answer to one request, None where the process ended over it."""
        process = self._ready()
        reply = b""
        try:
            if process.stdin is not None and process.stdout is not None:
                process.stdin.write(line)
                process.stdin.flush()
                reply = _line(process.stdout.fileno())
        except BrokenPipeError:
            reply = b""  # it ended before it had read all
        except BaseException:  # Ctrl-C: a late answer must not be taken for the next one's
            self.close()
            raise
        if reply.endswith(b"\n"):
            return reply
        self.close()
        return None

    def _ready(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-X", "utf8", str(_WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={},
                start_new_session=True,
            )
            self._ending = weakref.finalize(self, _end, self._process)
        return self._process


def _line(end: int) -> bytes:
    """Return what comes out of a pipe up to the end of a line, of the pipe, or of patience."""
    poll, deadline, found = select.poll(), time.monotonic() + _PATIENCE, b""
    poll.register(end, select.POLLIN)
    while not found.endswith(b"\n") and (left := deadline - time.monotonic()) > 0:
        # In short waits: a Ctrl-C is raised between calls.
        if poll.poll(min(left, 0.1) * 1000):
            part = os.read(end, 1 << 16)
            if not part:
                break
            found += part
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()
    process.wait()
