"""Crowds of streams, what they heard, and what the server's journal says that they should have heard."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.client import Heard, Leave, stream

Body = dict[str, Any]
Journal = Mapping[tuple[str, int], Sequence[int]]
# Token ids of the tiny chat model that are letters; those above are control tokens.
LETTERS = 256


def asked(prompt: Sequence[int], tokens: int, **fields: Any) -> Body:
    """A greedy request of exactly so many tokens, that tells its ids and what it cost."""
    return {
        "prompt": list(prompt),
        "max_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0,
        "return_token_ids": True,
        "stream_options": {"include_usage": True},
        **fields,
    }


def drawn(rng: random.Random, *, longest: int = 96, tokens: int = 64) -> Body:
    """A random prompt, some of them sampled, some with several answers."""
    prompt = [rng.randrange(LETTERS) for _ in range(rng.randint(1, longest))]
    fields: Body = {}
    if rng.random() < 0.5:
        fields = {"temperature": rng.choice((0.5, 1.0)), "seed": rng.randrange(2**31), "top_p": 0.9}
        fields["n"] = rng.choice((1, 1, 2, 3))
    return asked(prompt, rng.randint(1, tokens), **fields)


async def crowd(
    port: int,
    bodies: Iterable[Body],
    streams: int,
    *,
    leave: Iterator[Leave | None] | None = None,
    reset: bool = False,
) -> list[tuple[Body, Heard]]:
    """Send requests, so many at a time, each as soon as there is room; return them with what was heard.

    leave: for each request, when its client goes away. reset: every second one of them with a RST.
    """
    queue = iter(bodies)
    found: list[tuple[Body, Heard]] = []

    async def one() -> None:
        for body in queue:
            when = next(leave) if leave is not None else None
            rst = reset and len(found) % 2 == 0
            found.append((body, await stream(port, body, leave=when, reset=rst)))

    await asyncio.gather(*(one() for _ in range(streams)))
    return found


def journal(path: Path) -> Journal:
    """Read a server's journal: (id, index) -> tokens. Their steps must be 0, 1, 2, ... as they come."""
    found: dict[tuple[str, int], list[int]] = {}
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            said = json.loads(line)
            tokens = found.setdefault((said["id"], said["index"]), [])
            assert said["step"] == len(tokens), line
            tokens.append(said["token"])
    return found


def faults(body: Body, heard: Heard, sampled: Journal) -> list[str]:
    """Name what is wrong with a stream that its client heard to the end."""
    answers = range(body.get("n", 1))
    if not heard.whole:
        return [f"{heard.id}: not whole: {heard.status} {heard.broken or heard.error}"]
    wrong = []
    if heard.prompt_ids != body["prompt"]:
        wrong.append(f"{heard.id}: another prompt")
    if heard.reasons != dict.fromkeys(answers, "length"):
        wrong.append(f"{heard.id}: ended by {heard.reasons}")
    for i in answers:
        if heard.ids.get(i) != sampled.get((heard.id, i)):
            wrong.append(f"{heard.id}/{i}: heard {heard.ids.get(i)}, sampled {sampled.get((heard.id, i))}")
        if len(heard.ids.get(i, ())) != body["max_tokens"]:
            wrong.append(f"{heard.id}/{i}: {len(heard.ids.get(i, ()))} of {body['max_tokens']} tokens")
    usage, new = heard.usage or {}, len(answers) * body["max_tokens"]
    expected = {"prompt_tokens": len(body["prompt"]), "completion_tokens": new}
    expected["total_tokens"] = sum(expected.values())
    if {name: usage.get(name) for name in expected} != expected:
        wrong.append(f"{heard.id}: usage {usage}, expected {expected}")
    return wrong


def misheard(heard: Heard, sampled: Journal) -> list[str]:
    """Name what is wrong with what a client heard before it went away."""
    return [
        f"{heard.id}/{i}: heard {ids}, sampled {sampled.get((heard.id, i))}"
        for i, ids in heard.ids.items()
        if ids != list(sampled.get((heard.id, i), ()))[: len(ids)]
    ]
