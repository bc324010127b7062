"""`--ray`: the same answers from a Ray cluster of two nodes, one replica on each, and when one of them dies.

Ray is installed by `make nightly` (pip install bestiary[ray]).
"""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bench.client import Heard, ask, stream
from tests.serve.load.driving import LETTERS, asked, crowd
from tests.serve.serving import BESTIARY, Running, running

pytestmark = pytest.mark.nightly

# A replica asks for a core, so each node has room for one.
_CORES = 1
_OBJECTS = 100 << 20


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A Ray cluster of two nodes on this machine."""
    from ray.cluster_utils import Cluster

    common = {"num_cpus": _CORES, "object_store_memory": _OBJECTS, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=common)
    try:
        cluster.add_node(**common)
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture(scope="module")
def pair(nodes: Any, chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two replicas of the tiny chat model, one on each node."""
    options = ("--ray", nodes.address, "--port", str(free()), "--replicas", "2", "--max-streams", "8")
    with running(chat_model, *options, "--quiet", log=tmp_path_factory.mktemp("ray") / "log") as one:
        yield one


@pytest.fixture(scope="module")
def alone(chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The same model in one process."""
    with running(chat_model, "--quiet", log=tmp_path_factory.mktemp("alone") / "log") as one:
        yield one


def free() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def drawn(rng: random.Random, length: int) -> list[int]:
    return [rng.randrange(LETTERS) for _ in range(length)]


def ids_of(heard: Heard) -> list[int]:
    assert heard.whole, heard
    return heard.ids[0]


async def counts(port: int, name: str) -> Counter[str]:
    """A count of each replica, as it was last told."""
    text = (await ask(port, "GET", "/metrics")).body.decode()
    return Counter(
        {
            sample.labels["replica"]: int(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == f"bestiary_replica_{name}"
        }
    )


def test_answers_are_those_of_one_process(pair: Running, alone: Running) -> None:
    rng = random.Random(0)
    how = {"temperature": 1, "seed": 7}
    bodies = [asked(drawn(rng, 20 + i), 24, **(how if i % 2 else {})) for i in range(12)]

    async def run(port: int) -> list[list[int]]:
        heard = await crowd(port, bodies, 6)
        said = {str(body["prompt"]): ids_of(one) for body, one in heard}
        return [said[str(body["prompt"])] for body in bodies]

    assert asyncio.run(run(pair.port)) == asyncio.run(run(alone.port))


def test_the_rest_of_the_api_is_there(pair: Running, alone: Running) -> None:
    chat = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 8, "temperature": 0}
    with pair.client() as here, alone.client() as there:
        found, expected = (one.post("/v1/chat/completions", json=chat).json() for one in (here, there))
        assert found["choices"] == expected["choices"]
        assert found["usage"]["completion_tokens"] == expected["usage"]["completion_tokens"]
        vectors = [one.post("/v1/embeddings", json={"input": ["a", "b c"]}).json() for one in (here, there)]
        assert vectors[0].get("data") == vectors[1].get("data")
        assert here.get("/health").status_code == 200
        assert here.post("/v1/chat/completions", json={**chat, "temperature": 9}).status_code == 400
        long = here.post("/v1/completions", json={"prompt": [1] * 600, "max_tokens": 1})
        assert long.json()["error"]["code"] == "context_length_exceeded"
        refused = here.post("/v1/load_lora_adapter", json={"lora_name": "a", "lora_path": "b"})
        assert refused.status_code in (400, 403)


def test_prompts_that_begin_alike_go_where_that_is_kept(pair: Running) -> None:
    """Eight beginnings of 10 pages, three prompts with each: 2 of 3 find it, and both replicas work."""
    rng = random.Random(3)
    beginnings = [drawn(rng, 160) for _ in range(8)]

    async def run() -> tuple[list[int], Counter[str]]:
        before = await counts(pair.port, "prompt_tokens")
        bodies = [asked([*one, *drawn(rng, 8)], 4) for _ in range(3) for one in beginnings]
        found = [await stream(pair.port, body) for body in bodies]
        assert all(heard.whole and heard.usage for heard in found)
        cached = [heard.usage["prompt_tokens_details"]["cached_tokens"] for heard in found if heard.usage]
        return cached, await counts(pair.port, "prompt_tokens") - before

    cached, computed = asyncio.run(run())
    assert cached == [0] * 8 + [160] * 16
    assert len(computed) == 2


def test_clients_that_leave_free_what_they_held(pair: Running) -> None:
    rng = random.Random(5)

    async def leave() -> None:
        task = asyncio.create_task(stream(pair.port, asked(drawn(rng, 40), 400)))
        await asyncio.sleep(rng.random() / 5)
        task.cancel()

    async def run() -> bool:
        for _ in range(30):
            await leave()
        for _ in range(100):
            # An answer of each replica brings its counts.
            for _ in range(4):
                ids_of(await stream(pair.port, asked(drawn(rng, 20), 2)))
            free_, pages = await counts(pair.port, "free"), await counts(pair.port, "pages")
            running_ = await counts(pair.port, "running")
            cached = await counts(pair.port, "cached")
            if not +running_ and all(free_[one] + cached[one] == pages[one] for one in pages):
                return True
        return False

    assert asyncio.run(run())


def test_a_node_that_dies_takes_only_its_own_streams(pair: Running, nodes: Any) -> None:
    rng = random.Random(6)

    async def run() -> tuple[list[Heard], Heard]:
        streams = [
            asyncio.create_task(stream(pair.port, asked(drawn(rng, 30), 400, ignore_eos=True)))
            for _ in range(8)
        ]
        await asyncio.sleep(0.5)
        await asyncio.to_thread(nodes.remove_node, nodes.worker_nodes.copy().pop(), allow_graceful=False)
        found = await asyncio.gather(*streams)
        return list(found), await stream(pair.port, asked(drawn(rng, 30), 8))

    found, after = asyncio.run(run())
    assert all(heard.whole or heard.error for heard in found)
    assert {bool(heard.error) for heard in found} == {True, False}
    assert after.whole


def test_replicas_are_started_while_there_is_work_for_them(
    chat_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Ray is started here too, and ended."""
    options = ("--ray", "--port", str(free()), "--max-replicas", "2", "--max-streams", "2", "--quiet")
    rng = random.Random(8)

    async def run(port: int) -> int:
        for _ in range(200):
            bodies = [asked(drawn(rng, 20), 200, ignore_eos=True) for _ in range(12)]
            assert all(heard.whole for _, heard in await crowd(port, bodies, 12))
            if len(found := await counts(port, "new_tokens")) == 2:
                return len(found)
        return 1

    with running(chat_model, *options, log=tmp_path_factory.mktemp("scaled") / "log") as one:
        assert asyncio.run(run(one.port)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ray", "ray://somewhere:10001"), "start this on a machine of the cluster"),
        (("--ray", "127.0.0.1:9"), "nothing answers there"),
        (("--ray", "--journal", "j"), "--journal is of one machine"),
        (("--ray", "--port", "0"), "--port 0"),
        (("--ray", "--replicas", "3", "--max-replicas", "2"), "--max-replicas 2"),
        (("--max-replicas", "2"), "give --ray too"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_refused(chat_model: Path, options: tuple[str, ...], message: str) -> None:
    command = [*BESTIARY, "serve", str(chat_model), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert message in done.stderr
