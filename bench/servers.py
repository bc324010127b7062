"""Servers to measure: ours, llama.cpp's llama-server, and llama-cpp-python's; each is a process group.

A server that is not measured is stopped (SIGSTOP) meanwhile: one whose threads spin while they wait would
slow the one that is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from client import Broken, ask

STREAMS, CONTEXT = 16, 2048
_START = 120.0  # seconds
OURS, LLAMA_SERVER, LLAMA_PYTHON = "bestiary serve", "llama-server", "llama_cpp.server"


@dataclass
class Server:
    """One server and what was measured of it. file: the model."""

    name: str
    version: str
    file: Path
    port: int
    process: subprocess.Popen[bytes]
    single: list[float] = field(default_factory=list)
    many: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)

    @property
    def label(self) -> str:
        """The server and the model's packing."""
        return f"{self.name}, {self.file.stem.rpartition('.')[2]}"

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """Let it run within; it is stopped outside."""
        os.killpg(self.process.pid, signal.SIGCONT)
        try:
            yield
        finally:
            self.pause()

    def pause(self) -> None:
        """Stop it until it is let run again."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGSTOP)

    def end(self) -> None:
        """End it and what it started."""
        for number in (signal.SIGCONT, signal.SIGTERM):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def free_port() -> int:
    """Return a port that nothing listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def ours(file: Path, threads: int, *options: str) -> Server:
    """Start our server."""
    from importlib.metadata import version

    port = free_port()
    words = [sys.executable, "-m", "bestiary", "serve", str(file), "--port", str(port), "--quiet"]
    words += ["--threads", str(threads), "--ctx-size", str(CONTEXT), "--max-streams", str(STREAMS), *options]
    return _started(OURS, version("bestiary"), file, port, words)


def llama_server(binary: Path, file: Path, threads: int) -> Server:
    """Start llama-server: as many slots as streams, batched continuously (its default)."""
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    version = " ".join((said.stderr + said.stdout).split("\n")[0].split()[1:])
    port = free_port()
    words = [str(binary), "-m", str(file), "--port", str(port), "-t", str(threads), "-tb", str(threads)]
    words += ["--parallel", str(STREAMS), "-c", str(STREAMS * CONTEXT), "--no-webui", "--log-disable"]
    return _started(LLAMA_SERVER, version, file, port, words)


def llama_python(python: str, file: Path, threads: int) -> Server:
    """Start llama-cpp-python's server: it answers one request at a time."""
    code = "import llama_cpp; print(llama_cpp.__version__)"
    version = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    port = free_port()
    words = [python, "-m", "llama_cpp.server", "--model", str(file), "--port", str(port)]
    words += ["--n_threads", str(threads), "--n_threads_batch", str(threads), "--n_ctx", str(CONTEXT)]
    # By default a new request ends the one before it.
    words += ["--interrupt_requests", "false", "--verbose", "false"]
    return _started(LLAMA_PYTHON, version, file, port, words)


def serves(python: str) -> bool:
    """Whether this Python has llama-cpp-python and what its server needs."""
    code = "import llama_cpp.server.app, uvicorn"
    with contextlib.suppress(OSError):
        return subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0
    return False


def _started(name: str, version: str, file: Path, port: int, words: list[str]) -> Server:
    print(f"starting {name} on {file.name} ...", file=sys.stderr, flush=True)
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,  # not a session: Linux shares processors between sessions first, then by priority
    )
    server = Server(name, version, file, port, process)
    try:
        asyncio.run(ready(server))
    except BaseException:
        server.end()
        raise
    return server


async def ready(server: Server) -> None:
    """Wait until a server answers requests."""
    end = time.monotonic() + _START
    while time.monotonic() < end and server.process.poll() is None:
        with contextlib.suppress(OSError, Broken):
            # llama-cpp-python's server has no /health, and listens when the model is loaded.
            if (await ask(server.port, "GET", "/health")).status in (200, 404):
                return
        await asyncio.sleep(0.05)
    raise SystemExit(f"{server.label} did not start: {' '.join(map(str, server.process.args))}")  # type: ignore[union-attr]
