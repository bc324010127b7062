"""Too much of everything: a cache that holds one request, twenty times the load, readers that do not read."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack

from bench.client import Connection, Heard
from tests.serve.load.conftest import Serve, journal_of
from tests.serve.load.driving import LETTERS, Body, asked, crowd, faults, journal
from tests.serve.load.holding import at_rest, counts, held, memory, settled
from tests.serve.serving import Running

PAGE = 16


def test_a_cache_of_little_more_than_one_request_answers_all(serve: Serve) -> None:
    """16 requests of which the cache holds 1.2: each has the answer that it has alone."""
    rng = random.Random(12)
    bodies = [asked([rng.randrange(LETTERS) for _ in range(60)], 100) for _ in range(16)]
    tokens = -(-int(1.2 * 160) // PAGE) * PAGE
    server = serve("--deterministic", "--max-streams", "16", "--cache-tokens", str(tokens))

    async def run() -> None:
        alone = await crowd(server.port, bodies, 1)
        before = await at_rest(server.port)
        together = await crowd(server.port, bodies, 16)
        after = await at_rest(server.port)
        sampled = journal(journal_of(server))
        assert [wrong for body, heard in together for wrong in faults(body, heard, sampled)] == []
        expected = {tuple(body["prompt"]): heard for body, heard in alone}
        for body, heard in together:
            assert heard.ids == expected[tuple(body["prompt"])].ids
        assert after["bestiary_engine_preempted"] > before["bestiary_engine_preempted"]

    asyncio.run(run())


def test_twenty_times_the_load_is_refused_and_loses_nobody(serve: Serve) -> None:
    server = serve("--max-streams", "4", "--queue", "4")

    async def run() -> list[tuple[Body, Heard]]:
        await crowd(server.port, [asked([65], 4)], 1)
        before = await held(server)
        found = await crowd(server.port, [asked([65 + i % 20] * 30, 60) for i in range(160)], 160)
        assert await settled(server, before) == before
        return found

    found = asyncio.run(run())
    refused = [heard for _, heard in found if heard.status == 429]
    admitted = [(body, heard) for body, heard in found if heard.status == 200]
    assert len(refused) + len(admitted) == 160
    assert len(admitted) >= 8
    assert len(refused) >= 80
    assert all(int(heard.retry_after or 0) >= 1 for heard in refused)
    assert {heard.error["type"] for heard in refused if heard.error} == {"rate_limit_error"}
    sampled = journal(journal_of(server))
    assert [wrong for body, heard in admitted for wrong in faults(body, heard, sampled)] == []


async def stalled(stack: AsyncExitStack, server: Running, count: int) -> list[Connection]:
    """Open streams that nobody reads, over as small a buffer as the kernel gives."""
    # Likely tokens make an event of a kilobyte, so that the server's own buffers fill.
    body = asked([66] * 20, 300, logprobs=5, stream=True)
    found = []
    for _ in range(count):
        connection = await stack.enter_async_context(Connection.open(server.port, buffer=1))
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await connection.send("POST", "/v1/completions", body)
        found.append(connection)
    return found


def test_readers_that_do_not_read_cost_the_others_nothing(crowded: Running) -> None:
    """50 of them beside 16 that read: these are whole, and what is kept for the former is bounded."""
    server, rng = crowded, random.Random(50)

    async def run() -> list[tuple[Body, Heard]]:
        await crowd(server.port, [asked([65], 4)], 1)
        before, size = await held(server), memory(server)
        async with AsyncExitStack() as stack:
            readers = await stalled(stack, server, 50)
            bodies = [asked([rng.randrange(LETTERS) for _ in range(40)], 60) for _ in range(32)]
            found = await crowd(server.port, bodies, 16)
            while (await counts(server.port))["bestiary_engine_running"]:
                await asyncio.sleep(0.1)
            # What waits for each of them: 300 tokens, and 64 KiB of events.
            assert memory(server) - size < 64 + 50 * 1.0
            for reader in readers:
                reader.reset()
        assert await settled(server, before) == before
        return found

    found = asyncio.run(run())
    sampled = journal(journal_of(server))
    assert [wrong for body, heard in found for wrong in faults(body, heard, sampled)] == []
