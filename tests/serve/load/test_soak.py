"""A crowd of streams for a while: each token once, in order, as it was sampled; and nothing grows."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bench.client import Heard
from tests.serve.load.conftest import Serve, journal_of
from tests.serve.load.driving import Body, crowd, drawn, faults, journal
from tests.serve.load.holding import held, memory, settled
from tests.serve.serving import Running

STREAMS = 64
# Half again as many as are computed at once, so that some always wait.
OPTIONS = ("--max-streams", "48", "--queue", "128")
WARM, SAMPLE = 120.0, 5.0  # seconds


def bodies(seconds: float, *, tokens: int = 64) -> Iterator[Body]:
    """Requests for so long."""
    rng, end = random.Random(6), time.monotonic() + seconds
    while time.monotonic() < end:
        yield drawn(rng, tokens=tokens)


async def soaked(
    server: Running, seconds: float, samples: list[tuple[float, float]]
) -> list[tuple[Body, Heard]]:
    """Keep the server busy; note (seconds, MiB) every few seconds."""
    began = time.monotonic()

    async def watch() -> None:
        while True:
            samples.append((time.monotonic() - began, memory(server)))
            await asyncio.sleep(SAMPLE)

    watching = asyncio.create_task(watch())
    try:
        return await crowd(server.port, bodies(seconds), STREAMS)
    finally:
        watching.cancel()


async def whole(server: Running, seconds: float) -> list[tuple[float, float]]:
    """Soak a server, hold every stream to the journal, and return the samples of its memory."""
    samples: list[tuple[float, float]] = []
    await crowd(server.port, bodies(2.0), 4)
    before = await held(server)
    found = await soaked(server, seconds, samples)
    sampled = journal(journal_of(server))
    assert [wrong for body, heard in found for wrong in faults(body, heard, sampled)] == []
    assert len(found) >= STREAMS
    assert len({heard.id for _, heard in found}) == len(found)
    assert await settled(server, before) == before
    return samples


def slope(samples: list[tuple[float, float]]) -> float:
    """MiB a minute after the warm-up, by least squares."""
    at, size = np.array([one for one in samples if one[0] > WARM]).T
    return float(np.polyfit(at / 60, size, 1)[0])


def test_a_crowd_of_streams_loses_nothing(crowded: Running) -> None:
    asyncio.run(whole(crowded, 60.0))


@pytest.mark.nightly
@pytest.mark.parametrize("options", [(), ("--deterministic",), ("--cache-tokens", "2048")], ids=" ".join)
def test_ten_minutes_lose_nothing_and_memory_is_flat(serve: Serve, options: tuple[str, ...]) -> None:
    samples = asyncio.run(whole(serve(*OPTIONS, *options), 600.0))
    assert slope(samples) <= 1.0, samples


@pytest.mark.nightly
@pytest.mark.default_model
def test_ten_minutes_of_the_default_model(serve: Serve, default_model: Path) -> None:
    server = serve(*OPTIONS, "--threads", "2", "--ctx-size", "512", model=default_model)
    samples = asyncio.run(whole(server, 600.0))
    assert slope(samples) <= 1.0, samples
