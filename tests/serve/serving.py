"""`bestiary serve` as a process of its own, over a tiny chat model."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2

BESTIARY = (sys.executable, "-m", "bestiary")
_READY = re.compile(rb"page: http://[^/ ]*:(\d+)/")
_START, _END = 120.0, 20.0  # seconds


@dataclass(frozen=True)
class Running:
    """A server that answers. log: all that it has said on standard output and standard error."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path
    key: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def client(self, **changes: object) -> httpx2.Client:
        """An HTTP client that gives the key and takes nothing from the environment."""
        with_all = {"base_url": self.url, "headers": self.headers, "timeout": 120.0, "trust_env": False}
        return httpx2.Client(**{**with_all, **changes})  # type: ignore[arg-type]

    def said(self) -> str:
        return self.log.read_text(errors="replace")


@contextlib.contextmanager
def running(
    model: Path | str,
    *options: str,
    log: Path,
    key: str = "",
    command: Sequence[str] = BESTIARY,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """Start `bestiary serve` on a free port, wait until it answers; end it and its worker at all costs."""
    words = [*command, "serve", str(model), "--port", "0", "--threads", "1", *options]
    keyed = {"BESTIARY_API_KEY": key} if key else {}
    with log.open("wb") as out:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **keyed, **(environment or {})},
            start_new_session=True,
        )
    try:
        yield Running(_port(process, log), process, log, key)
    finally:
        _end(process)


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    end = time.monotonic() + _START
    while time.monotonic() < end and process.poll() is None:
        if found := _READY.search(log.read_bytes()):
            return int(found[1])
        time.sleep(0.05)
    raise AssertionError(f"the server did not start:\n{log.read_text(errors='replace')}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_END)
    except subprocess.TimeoutExpired:
        process.terminate()  # the second one ends open answers
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(3)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its session: a worker that it left behind
        process.wait()
