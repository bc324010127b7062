"""Clients that go away at any moment, with a FIN or a RST: what they held is free again, exactly."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from bench.client import Connection, Heard, Leave, stream
from tests.serve.load.conftest import Serve, journal_of
from tests.serve.load.driving import Body, asked, crowd, drawn, faults, journal, misheard
from tests.serve.load.holding import Held, at_rest, held, settled
from tests.serve.serving import Running

STREAMS = 32
OPTIONS = ("--max-streams", "24", "--queue", "128", "--chunk", "64")


def when(rng: random.Random, body: Body) -> Leave:
    """Leave after a share of the tokens drawn from 0 to 100 %: 0 is before the first token."""
    total = body["max_tokens"] * body.get("n", 1)
    at = rng.randint(0, total)
    return lambda heard: sum(map(len, heard.ids.values())) >= at


async def gone_early(port: int, body: Body, pause: float, *, reset: bool) -> None:
    """Ask for a stream and leave without reading a byte: in the queue, in prefill, or shortly after."""
    async with Connection.open(port) as connection:
        await connection.send("POST", "/v1/completions", {**body, "stream": True})
        await asyncio.sleep(pause)
        if reset:
            connection.reset()


async def left(server: Running, count: int, *, seed: int) -> list[tuple[Body, Heard]]:
    """Let so many clients go away, a third of them before their first token; a few stay to the end."""
    rng = random.Random(seed)
    made = [drawn(rng, longest=200, tokens=48) for _ in range(2 * count // 3)]
    unread = [
        (drawn(rng, longest=300), rng.uniform(0, 0.05), rng.random() < 0.5) for _ in range(count - len(made))
    ]

    async def early() -> None:
        for body, pause, reset in unread:
            await gone_early(server.port, body, pause, reset=reset)

    moments: Iterator[Leave | None] = iter(
        [when(rng, body) if i % 8 else None for i, body in enumerate(made)]
    )
    found, _ = await asyncio.gather(crowd(server.port, made, STREAMS, leave=moments, reset=True), early())
    return found


async def restored(server: Running, count: int, *, seed: int) -> None:
    """Let clients go away; what the server holds afterwards must be what it held before."""
    await crowd(server.port, [drawn(random.Random(1)) for _ in range(8)], 8)
    before = await held(server)
    assert before.free == before.pages
    found = await left(server, count, seed=seed)
    await at_rest(server.port)
    sampled = journal(journal_of(server))
    stayed = [(body, heard) for body, heard in found if not heard.left]
    assert [wrong for body, heard in stayed for wrong in faults(body, heard, sampled)] == []
    assert [wrong for _, heard in found if heard.left for wrong in misheard(heard, sampled)] == []
    assert sum(heard.left for _, heard in found) > len(found) // 2
    assert await settled(server, before) == before
    assert await _alone(server.port)


async def _alone(port: int) -> bool:
    return (await stream(port, asked([65] * 20, 8))).whole


def check(server: Running, count: int) -> Held:
    """Check a server, and that it said nothing on standard error for each client that left."""
    quiet = len(server.said())
    asyncio.run(restored(server, count, seed=count))
    assert len(server.said()) - quiet < 500, server.said()[-2000:]
    return asyncio.run(held(server))


def test_clients_that_leave_free_what_they_held(crowded: Running) -> None:
    check(crowded, 300)


@pytest.mark.nightly
@pytest.mark.parametrize("options", [(), ("--no-prefix-cache",), ("--cache-tokens", "1024")], ids=" ".join)
def test_ten_thousand_clients_that_leave(serve: Serve, options: tuple[str, ...]) -> None:
    check(serve(*OPTIONS, *options), 10_000)


def test_a_cancelled_answer_is_not_computed_to_its_end(crowded: Running) -> None:
    """What is not sampled costs nobody anything: the journal ends soon after the client's last token."""

    async def run() -> Heard:
        return await stream(
            crowded.port,
            asked([1, 2, 3], 500),
            leave=lambda heard: len(heard.ids.get(0, ())) >= 3,
            reset=True,
        )

    heard = asyncio.run(run())
    asyncio.run(at_rest(crowded.port))
    sampled = journal(journal_of(crowded))[heard.id, 0]
    assert heard.ids[0] == list(sampled[: len(heard.ids[0])])
    assert len(sampled) < 500
