"""How our server behaves when things go wrong, in seconds: overload, readers that stall, kills, signals.

That nothing is lost is checked by tests/serve/load; here is how long it takes.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from client import Connection, Heard, ask, stream
from servers import STREAMS, Server, ours

Draw = Callable[[int], str]
PROMPT, NEW, SECONDS, TIMES = 64, 64, 20.0, 10
QUEUE, CROWD, STALLED = 16, 20 * STREAMS, 50
GRACE = 2.0
_AGAIN = 1.0  # seconds after which a refused client asks again, as Retry-After says


def percentile(values: list[float], percent: int) -> float:
    """Return the smallest value that is not exceeded by so many percent of them."""
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]


def table(model: Path, threads: int, draw: Draw) -> str:
    """Measure all and return the table."""
    rows = []
    for measure in (overload, stalled, kills, signals):
        print(f"{measure.__name__} ...", file=sys.stderr, flush=True)
        rows += measure(model, threads, draw)
    lines = "\n".join(f"| {what} | {found} |" for what, found in rows)
    return f"| when things go wrong | |\n|---|---|\n{lines}"


def body(draw: Draw, tokens: int = NEW, **fields: Any) -> dict[str, Any]:
    """Return a request of ours."""
    usage = {"include_usage": True}
    return {
        "prompt": draw(PROMPT), "max_tokens": tokens, "temperature": 0, "ignore_eos": True,
        "stream_options": usage, **fields,
    }  # fmt: skip


# Overload: twenty times as many clients as streams.


async def _crowd(port: int, draw: Draw, clients: int, seconds: float) -> list[Heard]:
    """Let clients ask again and again for so long; return all that they heard."""
    end, found = time.monotonic() + seconds, []
    prompts = [body(draw) for _ in range(clients)]

    async def one(i: int) -> None:
        while time.monotonic() < end:
            heard = await stream(port, prompts[i])
            found.append(heard)
            if heard.status == 429:
                await asyncio.sleep(_AGAIN)

    await asyncio.gather(*(one(i) for i in range(clients)))
    return found


def _goodput(found: list[Heard], seconds: float) -> float:
    """Return tokens a second of the streams that are whole."""
    return sum(int((one.usage or {})["completion_tokens"]) for one in found if one.whole) / seconds


async def _timed(port: int, draw: Draw, clients: int) -> tuple[float, list[Heard]]:
    began = time.monotonic()
    found = await _crowd(port, draw, clients, SECONDS)
    return _goodput(found, time.monotonic() - began), found


def overload(model: Path, threads: int, draw: Draw) -> list[tuple[str, str]]:
    """Return the goodput of 16 clients, of 20 times as many, and how fast the rest is refused."""
    server = ours(model, threads, "--queue", str(QUEUE), "--no-prefix-cache")
    try:
        asyncio.run(_timed(server.port, draw, 2))
        peak, _ = asyncio.run(_timed(server.port, draw, STREAMS))
        good, found = asyncio.run(_timed(server.port, draw, CROWD))
    finally:
        server.end()
    refused = [one.seconds for one in found if one.status == 429]
    served = [one for one in found if one.status == 200]
    whole = sum(one.whole for one in served)
    other = len(found) - len(refused) - len(served)
    return [
        (f"goodput of {STREAMS} clients, tok/s", f"{peak:.1f}"),
        (f"goodput of {CROWD} clients, tok/s", f"{good:.1f} ({100 * good / peak:.0f} %)"),
        (
            f"refused with 429 of {len(found)}: {len(refused)}, p50 and p99, s",
            f"{statistics.median(refused):.4f}, {percentile(refused, 99):.4f}",
        ),
        ("admitted, of these whole, and any other status", f"{len(served)}, {whole}, {other}"),
    ]


# Readers that stall.


async def _beside(server: Server, draw: Draw, readers: int) -> float:
    """Return the goodput of 16 streams beside readers that take nothing."""
    async with AsyncExitStack() as stack:
        for _ in range(readers):
            one = await stack.enter_async_context(Connection.open(server.port, buffer=1))
            one.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await one.send("POST", "/v1/completions", body(draw, 512, logprobs=5, stream=True))
        # Their answers are computed and wait in buffers: what is measured is beside them, not behind them.
        while readers and await _under_way(server.port) == 0:
            await asyncio.sleep(0.05)
        while await _under_way(server.port) > 0:
            await asyncio.sleep(0.2)
        good, _ = await _timed(server.port, draw, STREAMS)
    return good


async def _under_way(port: int) -> float:
    running = await _count(port, "bestiary_engine_running")
    return running + await _count(port, "bestiary_engine_waiting")


async def _count(port: int, name: str) -> float:
    lines = (await ask(port, "GET", "/metrics")).body.decode().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


def stalled(model: Path, threads: int, draw: Draw) -> list[tuple[str, str]]:
    """Return the goodput of 16 streams beside 50 readers who take nothing, as a share of that alone."""
    server = ours(model, threads, "--no-prefix-cache")
    try:
        shares = []
        for _ in range(3):
            alone = asyncio.run(_beside(server, draw, 0))
            shares.append(100 * asyncio.run(_beside(server, draw, STALLED)) / alone)
    finally:
        server.end()
    return [(f"goodput of {STREAMS} beside {STALLED} stalled readers", f"{statistics.median(shares):.0f} %")]


# Kills and signals.


def _worker(server: Server) -> int:
    told = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(server.process.pid)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return next(int(line.split()[0]) for line in told.splitlines() if "bestiary.serve.worker" in line)


async def _kill(server: Server, draw: Draw, rng: random.Random) -> tuple[float, float]:
    """Kill the worker under 16 streams; return seconds to the last one's end, and to the next answer."""
    open_ones = [asyncio.create_task(stream(server.port, body(draw, 512))) for _ in range(STREAMS)]
    await asyncio.sleep(rng.uniform(1.0, 3.0))
    began = time.monotonic()
    os.kill(_worker(server), signal.SIGKILL)
    heard = await asyncio.gather(*open_ones)
    ended = time.monotonic() - began
    assert all(one.error and not one.broken for one in heard), heard
    while (await ask(server.port, "POST", "/v1/completions", {"prompt": "a", "max_tokens": 1})).status != 200:
        await asyncio.sleep(0.02)
    return ended, time.monotonic() - began


def kills(model: Path, threads: int, draw: Draw) -> list[tuple[str, str]]:
    """Return how soon streams of a killed worker end, and the server answers again."""
    server, rng = ours(model, threads), random.Random(1)
    try:
        found = [asyncio.run(_kill(server, draw, rng)) for _ in range(TIMES)]
    finally:
        server.end()
    ended, again = ([one[i] for one in found] for i in (0, 1))
    return [
        (
            f"kill -9 of the worker, {TIMES} times: {STREAMS} streams end with an error, p50 and longest, s",
            two(ended),
        ),
        ("and the next answer", two(again)),
    ]


async def _signal(server: Server, draw: Draw, *, twice: bool) -> float:
    """Return seconds from SIGTERM to the exit, beside 16 streams that take longer than the grace."""
    open_ones = [asyncio.create_task(stream(server.port, body(draw, 1500))) for _ in range(STREAMS)]
    await asyncio.sleep(2.0)
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    if twice:
        await asyncio.sleep(0.2)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
    heard = await asyncio.gather(*open_ones)
    assert all(one.whole or (one.error and not one.broken) for one in heard), heard
    while server.process.poll() is None:
        await asyncio.sleep(0.01)
    assert server.process.returncode == 0
    return time.monotonic() - began


def signals(model: Path, threads: int, draw: Draw) -> list[tuple[str, str]]:
    """Return how long the process lives after SIGTERM, and after a second one."""
    found: dict[bool, list[float]] = {False: [], True: []}
    for twice, times in found.items():
        for _ in range(3):
            server = ours(model, threads, "--grace", str(60.0 if twice else GRACE))
            try:
                times.append(asyncio.run(_signal(server, draw, twice=twice)))
            finally:
                server.end()
    return [
        (
            f"SIGTERM to exit, grace {GRACE:.0f} s and streams that take longer, p50 and longest, s",
            two(found[False]),
        ),
        ("second SIGTERM to exit, p50 and longest, s", two(found[True])),
    ]


def two(values: list[float]) -> str:
    """Return the median and the largest."""
    return f"{statistics.median(values):.2f}, {max(values):.2f}"
