"""`--replicas 2`: prompts that begin alike go to one, and a worker that dies takes only its own streams."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bench.client import Connection, Heard, ask, stream
from bestiary.errors import RequestError
from bestiary.serve.replicas import openings
from bestiary.serve.settings import Opening, Settings
from tests import adapted
from tests.serve.load.driving import LETTERS, asked, crowd, faults, journal
from tests.serve.load.holding import PATIENCE, at_rest, processes
from tests.serve.serving import Running, running

REPLICAS = 2
Q = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def pair(chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two replicas of the tiny chat model, each with a journal."""
    folder = tmp_path_factory.mktemp("pair")
    adapters = folder / "adapters"
    a, b = adapted.factors(32, 31, seed=1)  # the matrix has 32 columns
    adapted.write(adapters / "bad", {f"{Q}.lora_A.weight": a, f"{Q}.lora_B.weight": b})
    options = ("--replicas", str(REPLICAS), "--max-streams", "8", "--allow-adapters", str(adapters))
    with running(
        chat_model, *options, "--journal", str(folder / "journal"), "--quiet", log=folder / "log"
    ) as one:
        yield one


async def by_replica(port: int, name: str) -> dict[str, float]:
    """A count of each replica."""
    text = (await ask(port, "GET", "/metrics")).body.decode()
    return {
        sample.labels["replica"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"bestiary_replica_{name}"
    }


async def rested(port: int, name: str) -> Counter[str]:
    """The same, when nothing is computed: idle engines have told their counts."""
    await at_rest(port)
    return Counter(await by_replica(port, name))


def test_workers_share_the_cores_and_have_journals_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    opening = Opening(model="m", device="cpu", journal="/tmp/journal")
    assert openings(opening, 1) == [opening]
    found = openings(opening, 3)
    assert [one.threads for one in found] == [2, 2, 2]
    assert [one.journal for one in found] == [f"/tmp/journal.{place}" for place in range(3)]
    assert [one.threads for one in openings(opening, 64)] == [1] * 64
    assert {one.threads for one in openings(replace(opening, threads=5), 2)} == {5}


@pytest.mark.parametrize("count", [0, -1, 65])
def test_a_number_of_replicas_has_bounds(count: int) -> None:
    with pytest.raises(RequestError, match=rf"--replicas {count} should be from 1 to 64"):
        Settings(opening=Opening(model="m"), replicas=count)


def drawn(rng: random.Random, length: int) -> list[int]:
    return [rng.randrange(LETTERS) for _ in range(length)]


def test_prompts_that_begin_alike_go_where_that_is_kept(pair: Running) -> None:
    """Eight beginnings of 10 pages, five prompts with each: 4 of 5 find all of it, and both replicas work."""
    rng = random.Random(3)
    beginnings = [drawn(rng, 160) for _ in range(8)]

    async def run() -> tuple[Counter[str], Counter[str], list[Heard]]:
        reused, prompts = await rested(pair.port, "reused_tokens"), await rested(pair.port, "prompt_tokens")
        bodies = [asked([*beginning, *drawn(rng, 8)], 4) for _ in range(5) for beginning in beginnings]
        found = [await stream(pair.port, body) for body in bodies]
        reused = await rested(pair.port, "reused_tokens") - reused
        return reused, await rested(pair.port, "prompt_tokens") - prompts, found

    reused, prompts, found = asyncio.run(run())
    assert all(heard.whole for heard in found)
    assert sum(reused.values()) == 8 * 4 * 160
    # What is computed of a beginning and its five prompts: 168 + 4 * 8 tokens, all on one replica.
    assert sum(prompts.values()) == 8 * 200
    assert set(prompts) == {"0", "1"}
    assert all(count % 200 == 0 for count in prompts.values())


def test_answers_are_those_of_the_journals(pair: Running) -> None:
    """A crowd with one beginning is too much for one replica: both compute, and nothing is mixed up."""
    rng = random.Random(4)
    beginning = drawn(rng, 64)
    sampled_from = {"temperature": 1, "seed": 5}
    bodies = [asked([*beginning, *drawn(rng, 9)], 40, n=1 + i % 3, **sampled_from) for i in range(24)]
    lists = asked([], 12)
    lists["prompt"] = [drawn(rng, 40) for _ in range(6)]

    async def run() -> tuple[list[tuple[Any, Heard]], Heard]:
        found = await crowd(pair.port, bodies, 24)
        return found, await stream(pair.port, lists)

    found, many = asyncio.run(run())
    asyncio.run(at_rest(pair.port))
    each = [journal(pair.log.with_name(f"journal.{place}")) for place in range(REPLICAS)]
    sampled = {**each[0], **each[1]}
    assert [wrong for body, heard in found for wrong in faults(body, heard, sampled)] == []
    assert all(any((heard.id, 0) in one for _, heard in found) for one in each)
    # Prompts of one request are spread too, and their answers come under one id.
    assert many.whole
    assert many.ids == {i: sampled[many.id, i] for i in range(6)}


def test_an_adapter_that_a_worker_refuses_is_on_none(pair: Running) -> None:
    async def run() -> tuple[int, Any, list[str]]:
        async with Connection.open(pair.port) as connection:
            await connection.send("POST", "/v1/load_lora_adapter", {"lora_name": "bad", "lora_path": "bad"})
            head = await connection.head()
            said = json.loads(b"".join([piece async for piece in connection.pieces(head)]))
        models = (await ask(pair.port, "GET", "/v1/models")).json()["data"]
        return head.status, said["error"], [one["id"] for one in models]

    status, error, names = asyncio.run(run())
    assert (status, error["type"]) == (400, "invalid_request_error")
    assert len(names) == 1


def workers(server: Running) -> list[int]:
    return [
        pid
        for pid in processes(server)
        if b"bestiary.serve.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def owner(server: Running, place: int, pids: Sequence[int]) -> int:
    """The worker that writes a replica's journal."""
    path = server.log.with_name(f"journal.{place}")
    (found,) = [
        pid for pid in pids if any(link.readlink() == path for link in Path(f"/proc/{pid}/fd").iterdir())
    ]
    return found


def test_a_replica_that_dies_takes_its_own_streams_and_comes_back(pair: Running) -> None:
    rng = random.Random(5)
    bodies = [asked(drawn(rng, 20), 300) for _ in range(8)]

    async def run() -> tuple[list[Heard], str]:
        begun = asyncio.Event()
        writing = set()

        def look(heard: Heard) -> bool:
            if heard.ids.get(0):
                writing.add(heard.id)
            if len(writing) == len(bodies):
                begun.set()
            return False

        async def kill() -> None:
            await asyncio.wait_for(begun.wait(), PATIENCE)
            os.kill(owner(pair, 0, workers(pair)), signal.SIGKILL)

        killing = asyncio.create_task(kill())
        found = list(await asyncio.gather(*(stream(pair.port, body, leave=look) for body in bodies)))
        await killing
        # One is enough to answer: nobody is told to wait for the other.
        meanwhile = await stream(pair.port, asked([1, 2, 3], 4))
        assert meanwhile.whole
        health = json.loads((await ask(pair.port, "GET", "/health")).body)
        return found, health["status"]

    found, status = asyncio.run(run())
    assert status == "ok"
    lost = [heard for heard in found if not heard.whole]
    whole = [heard for heard in found if heard.whole]
    assert lost
    assert whole
    assert {heard.error["code"] for heard in lost if heard.error} == {"worker_lost"}
    assert all(heard.error for heard in lost)
    asyncio.run(_back(pair))
    here = journal(pair.log.with_name("journal.1"))
    assert all(heard.ids[0] == here[heard.id, 0] for heard in whole)
    assert not any((heard.id, 0) in here for heard in lost)


async def _back(server: Running) -> None:
    """The replica that died computes again, and what it kept is not counted on."""
    while (ready := await by_replica(server.port, "ready")) != {"0": 1, "1": 1}:
        assert ready["1"] == 1
        await asyncio.sleep(0.05)
    assert await by_replica(server.port, "restarts") == {"0": 1, "1": 0}
    before = await rested(server.port, "new_tokens")
    rng = random.Random(6)
    found = await crowd(server.port, [asked(drawn(rng, 30), 20) for _ in range(16)], 16)
    assert all(heard.whole for _, heard in found)
    assert set(await rested(server.port, "new_tokens") - before) == {"0", "1"}
