"""What a server holds, read from outside (Linux's /proc): pages of its cache, processes, memory."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from bench.client import Broken, ask
from tests.serve.serving import Running

PATIENCE = 60.0
_MIB = 2.0**20
# Shared memory of Python's multiprocessing, of torch and of OpenMP; a browser beside the tests has its own.
_SHARED = ("psm_", "sem.", "torch_", "__KMP")
_REST = ("bestiary_open_requests", "bestiary_engine_running", "bestiary_engine_waiting")


@dataclass(frozen=True)
class Held:
    """processes: command lines of all that the server started, itself too. shared: files of shared memory."""

    free: float
    pages: float
    processes: tuple[str, ...]
    descriptors: int
    shared: frozenset[str]


async def counts(port: int) -> dict[str, float]:
    """The server's counts by name; those of routes left out."""
    families = text_string_to_metric_families((await ask(port, "GET", "/metrics")).body.decode())
    return {one.name: one.value for family in families for one in family.samples if not one.labels}


async def at_rest(port: int) -> dict[str, float]:
    """Wait until nothing is computed and nobody waits; return the counts."""
    end = time.monotonic() + PATIENCE
    while True:
        found = await counts(port)
        if not any(found[name] for name in _REST):
            # Stats of an idle engine are told once: another look tells whether these were the last.
            await asyncio.sleep(0.2)
            if await counts(port) == found:
                return found
        assert time.monotonic() < end, {name: found[name] for name in _REST}
        await asyncio.sleep(0.05)


async def healthy(port: int) -> None:
    """Wait until the server answers requests."""
    end = time.monotonic() + PATIENCE
    while (await ask(port, "GET", "/health")).status != 200:
        assert time.monotonic() < end, "not serving again"
        await asyncio.sleep(0.05)


async def held(server: Running) -> Held:
    """What the server holds when it rests: a page that is remembered but held by nobody counts as free."""
    found = await at_rest(server.port)
    pids = processes(server)
    lines = [Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip() for pid in pids]
    return Held(
        free=found["bestiary_engine_free"] + found["bestiary_engine_cached"],
        pages=found["bestiary_engine_pages"],
        processes=tuple(sorted(lines)),
        descriptors=sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids),
        shared=frozenset(one.name for one in Path("/dev/shm").iterdir() if one.name.startswith(_SHARED)),
    )


async def settled(server: Running, before: Held) -> Held:
    """What the server holds once it has closed what its clients closed: to hear of a FIN takes it a turn."""
    end = time.monotonic() + PATIENCE
    while (now := await held(server)) != before and time.monotonic() < end:
        await asyncio.sleep(0.1)
    return now


def processes(server: Running) -> list[int]:
    """The server's process and all that it started: those of its session, zombies too."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # pid (name) state parent group session ...; a name may hold spaces and brackets.
            session = (folder / "stat").read_text().rpartition(")")[2].split()[3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(session) == server.process.pid:
            found.append(int(folder.name))
    return sorted(found)


def worker_of(server: Running) -> int:
    """The process that holds the model."""
    (found,) = [
        pid
        for pid in processes(server)
        if b"bestiary.serve.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return found


def memory(server: Running) -> float:
    """MiB that the server's processes hold in memory, as the kernel counts pages (RssAnon and RssFile)."""
    pages = (int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in processes(server))
    return sum(pages) * 4096 / _MIB


async def refused(port: int) -> bool:
    """Whether nothing listens at a port any more."""
    try:
        await ask(port, "GET", "/health")
    except (OSError, Broken):
        return True
    return False
