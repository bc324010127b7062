"""One line of JSON for each request, on standard error: what was asked and how it went, never what was said.

A prompt is in it only where the operator asked for prompts. Writing it never fails a request.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TextIO

_MOST = 4096


@dataclass
class Record:
    """What becomes known of a request while it is answered. Times are seconds since it came.

    request: its own id, which its answer has in x-request-id. id: the answer's.
    """

    began: float = field(default_factory=time.monotonic)
    request: str = field(default_factory=lambda: f"req_{secrets.token_hex(12)}")
    id: str | None = None
    model: str | None = None
    prompt: str | None = None
    prompt_tokens: int | None = None
    new_tokens: int | None = None
    cached_tokens: int | None = None
    first: float | None = None
    error: str | None = None

    def elapsed(self) -> float:
        """Return the seconds since the request came."""
        return time.monotonic() - self.began


class Log:
    """Where the lines go. prompts: whether prompts are in them. quiet: there are none."""

    def __init__(self, *, prompts: bool = False, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.prompts, self._quiet, self._stream = prompts, quiet, stream

    def request(self, record: Record, *, method: str, route: str, status: int) -> None:
        """Write the line of a request."""
        said: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "event": "request",
            "request": record.request,
            "id": record.id,
            "method": method,
            "route": route,
            "status": status,
            "model": record.model,
            "prompt_tokens": record.prompt_tokens,
            "new_tokens": record.new_tokens,
            "cached_tokens": record.cached_tokens,
            "first_token_seconds": None if record.first is None else round(record.first, 4),
            "seconds": round(record.elapsed(), 4),
            "error": record.error,
        }
        if self.prompts and record.prompt is not None:
            said["prompt"] = record.prompt[:_MOST]
        if not self._quiet:
            self._write({name: value for name, value in said.items() if value is not None})

    def event(self, event: str, **said: Any) -> None:
        """Write a line of something that is no request: a worker that died, a defect."""
        known = {name: value for name, value in said.items() if value is not None}
        self._write({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "event": event, **known})

    def _write(self, said: dict[str, Any]) -> None:
        # Standard error may be closed, or a file on a full disk.
        with suppress(OSError, ValueError):
            stream = sys.stderr if self._stream is None else self._stream
            stream.write(json.dumps(said, ensure_ascii=False) + "\n")
            stream.flush()
