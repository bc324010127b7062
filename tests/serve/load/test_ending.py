"""Signals and kills at random moments of a load: a stream is whole, or it says that it is not."""

from __future__ import annotations

import asyncio
import os
import random
import signal

import pytest

from bench.client import Heard
from tests.serve.load.conftest import Serve, journal_of
from tests.serve.load.driving import Body, asked, crowd, drawn, faults, journal, misheard
from tests.serve.load.holding import (
    PATIENCE,
    counts,
    healthy,
    held,
    processes,
    refused,
    settled,
    worker_of,
)
from tests.serve.serving import Running

STREAMS = 16


def load(rng: random.Random, count: int = STREAMS) -> list[Body]:
    """A crowd of requests that keep the server busy for a moment."""
    return [drawn(rng, longest=60, tokens=120) for _ in range(count)]


# SIGTERM: what was begun is finished.


async def terminated(server: Running, moment: float, rng: random.Random) -> list[tuple[Body, Heard]]:
    """Ask to stop under streams; return them once all have ended."""
    crowding = asyncio.create_task(crowd(server.port, load(rng, 2 * STREAMS), STREAMS))
    await asyncio.sleep(moment)
    server.process.send_signal(signal.SIGTERM)
    return await crowding


async def check_terminated(server: Running, rng: random.Random) -> None:
    """Stop a server at a random moment: a stream that began is whole, and the rest are told 503."""
    others = set(processes(server)) - {server.process.pid}
    found = await terminated(server, rng.uniform(0.0, 1.5), rng)
    assert await asyncio.to_thread(server.process.wait, PATIENCE) == 0
    sampled = journal(journal_of(server))
    began = [(body, heard) for body, heard in found if heard.status == 200]
    assert [wrong for body, heard in began for wrong in faults(body, heard, sampled)] == []
    # One that came too late was refused, or met no listener: never a stream without an end.
    late = [heard for _, heard in found if heard.status != 200]
    assert [heard for heard in late if heard.status not in (0, 503) or heard.texts] == []
    assert others.isdisjoint(processes(server))
    assert await refused(server.port)


async def terminations(serve: Serve, count: int, rng: random.Random) -> None:
    """Stop so many servers, beside each other."""
    words = [("--max-streams", str(rng.choice((4, 8, 16)))) for _ in range(count)]
    servers = await asyncio.gather(*(asyncio.to_thread(serve, *one) for one in words))
    await asyncio.gather(*(check_terminated(server, rng) for server in servers))


def test_sigterm_truncates_no_stream(serve: Serve) -> None:
    asyncio.run(terminations(serve, 3, random.Random(3)))


@pytest.mark.nightly
def test_two_hundred_sigterms_truncate_no_stream(serve: Serve) -> None:
    rng = random.Random(200)
    for _ in range(50):
        asyncio.run(terminations(serve, 4, rng))


# Kills: what was begun ends with an error, and the server goes on.


async def killed(server: Running, rng: random.Random) -> list[tuple[Body, Heard]]:
    """Kill the worker under streams; return them once all have ended."""
    restarts = (await counts(server.port))["bestiary_worker_restarts"]
    crowding = asyncio.create_task(crowd(server.port, load(rng), STREAMS))
    await asyncio.sleep(rng.uniform(0.0, 0.6))
    os.kill(worker_of(server), signal.SIGKILL)
    async with asyncio.timeout(PATIENCE):
        found = await crowding
        # Streams may all have ended before the kill: then nothing tells that the server knows of it.
        while (await counts(server.port))["bestiary_worker_restarts"] == restarts:
            await asyncio.sleep(0.02)
    return found


async def check_kill(server: Running, rng: random.Random) -> int:
    """Kill a worker once; return how many streams it took with it."""
    found = await killed(server, rng)
    await healthy(server.port)
    sampled = journal(journal_of(server))
    lost = [heard for _, heard in found if heard.status == 200 and not heard.whole]
    # The framing of an error is whole, and no [DONE] comes behind it.
    assert [heard for heard in lost if heard.broken or heard.done or not heard.error] == []
    assert {heard.error["code"] for heard in lost if heard.error} <= {"worker_lost"}
    assert [wrong for heard in lost for wrong in misheard(heard, sampled)] == []
    assert [wrong for body, heard in found if heard.whole for wrong in faults(body, heard, sampled)] == []
    assert {heard.status for _, heard in found} <= {200, 503}
    ((body, heard),) = await crowd(server.port, [asked([65] * 8, 8)], 1)
    assert faults(body, heard, journal(journal_of(server))) == []
    return len(lost)


async def kills(server: Running, count: int) -> None:
    """Kill workers; afterwards the server holds what it held before the first."""
    rng = random.Random(count)
    await crowd(server.port, load(rng), STREAMS)
    before = await held(server)
    lost = sum([await check_kill(server, rng) for _ in range(count)])
    assert lost >= count
    assert await settled(server, before) == before


def test_a_killed_worker_ends_streams_with_an_error(crowded: Running) -> None:
    asyncio.run(kills(crowded, 3))


@pytest.mark.nightly
def test_fifty_killed_workers_leave_nothing_behind(serve: Serve) -> None:
    asyncio.run(kills(serve("--max-streams", "8"), 50))
