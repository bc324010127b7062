"""Deterministic mode through HTTP: the same request has the same answer alone and in any company.

The reference is the server itself with one request at a time: no batch, no shared prefix, the whole prompt in
one step. What changes is the company, the prefix cache, how prompts are cut, and a cache so small that
sequences lose their pages and are computed again.
"""

from __future__ import annotations

import asyncio
import random
from itertools import product

import pytest

from bench.client import Heard
from tests.serve.load.conftest import Serve
from tests.serve.load.driving import LETTERS, Body, asked, crowd
from tests.serve.load.holding import at_rest
from tests.serve.serving import Running

PLAIN = ("--deterministic", "--no-prefix-cache", "--max-streams", "64", "--queue", "128")
NARROW = ("--cache-tokens", "640")  # the longest request has 20 pages of it: two of them do not fit


def requests(count: int) -> list[Body]:
    """Greedy and sampled requests; some begin alike, so that there is something to share."""
    rng = random.Random(1000)
    shared = [[rng.randrange(LETTERS) for _ in range(rng.choice((17, 48, 100)))] for _ in range(6)]
    made = []
    for i in range(count):
        own = [rng.randrange(LETTERS) for _ in range(rng.randint(1, 120))]
        prompt = rng.choice(shared) + own if rng.random() < 0.6 else own
        fields: Body = {}
        if i % 2:
            fields = {"temperature": rng.choice((0.3, 0.8, 1.5)), "seed": i, "top_p": rng.choice((0.7, 1.0))}
            fields |= {"top_k": rng.choice((0, 40)), "frequency_penalty": rng.choice((0.0, 0.5))}
            fields["n"] = rng.choice((1, 1, 1, 3))
        made.append(asked(prompt, rng.randint(4, 60), **fields))
    return made


async def answers(port: int, bodies: list[Body], rng: random.Random | None) -> list[Heard]:
    """Return what each request is answered: one at a time, or in batches of random company and size."""
    order = list(range(len(bodies)))
    found: dict[int, Heard] = {}
    if rng is not None:
        rng.shuffle(order)
    while order:
        size = 1 if rng is None else rng.randint(1, 64)
        batch, order = order[:size], order[size:]
        heard = await asyncio.gather(*(crowd(port, [bodies[i]], 1) for i in batch))
        found |= {i: one for i, ((_, one),) in zip(batch, heard, strict=True)}
    return [found[i] for i in range(len(bodies))]


def same(alone: list[Heard], others: list[Heard]) -> list[str]:
    """Name the answers that differ."""
    assert all(one.whole for one in (*alone, *others)), [one for one in others if not one.whole][:1]
    return [
        f"request {i}: {one.ids} alone, {other.ids} in company"
        for i, (one, other) in enumerate(zip(alone, others, strict=True))
        if (one.ids, one.texts) != (other.ids, other.texts)
    ]


def company(server: Running, bodies: list[Body], alone: list[Heard], *, seed: int) -> dict[str, float]:
    """Check a server's answers against those alone; return its counts."""
    assert same(alone, asyncio.run(answers(server.port, bodies, random.Random(seed)))) == []
    return asyncio.run(at_rest(server.port))


def test_company_prefixes_chunks_and_preemption_change_nothing(serve: Serve) -> None:
    bodies = requests(30)
    plain = serve(*PLAIN)
    alone = asyncio.run(answers(plain.port, bodies, None))
    company(plain, bodies, alone, seed=1)
    words = [word for word in PLAIN if word != "--no-prefix-cache"]
    found = company(serve(*words, "--chunk", "16", *NARROW), bodies, alone, seed=2)
    assert found["bestiary_engine_preempted"] > 0
    # A cache with room for all keeps what the first company computed for the second.
    wide = serve(*words, "--chunk", "16")
    company(wide, bodies, alone, seed=3)
    found = company(wide, bodies, alone, seed=4)
    assert found["bestiary_reused_tokens_total"] > 0


@pytest.mark.nightly
def test_a_thousand_requests_are_the_same_in_any_company(serve: Serve) -> None:
    bodies = requests(1000)
    plain = serve(*PLAIN)
    alone = asyncio.run(answers(plain.port, bodies, None))
    words = [word for word in PLAIN if word != "--no-prefix-cache"]
    choices = product((["--no-prefix-cache"], []), (["--chunk", "16"], []), (NARROW, ()))
    for seed, (share, chunk, narrow) in enumerate(choices):
        found = company(serve(*words, *share, *chunk, *narrow), bodies, alone, seed=seed)
        assert (found["bestiary_engine_preempted"] > 0) == bool(narrow), found
        assert (found["bestiary_reused_tokens_total"] > 0) == (not share), found
