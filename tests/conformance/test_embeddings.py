"""POST /v1/embeddings."""

from __future__ import annotations

import asyncio
import base64
import struct
from typing import Any

import httpx2
import openai
import pytest
from openai.types import CreateEmbeddingResponse

from tests.conformance.target import Target, error, read

pytestmark = pytest.mark.needs("embeddings")
TEXTS = ["The parrot is dead.", "Zwölf Boxkämpfer 一二三", "The bird has died."]


def ask(wire: httpx2.Client, target: Target, **fields: Any) -> CreateEmbeddingResponse:
    response = wire.post("embeddings", json={"model": target.embedder, **fields})
    assert response.status_code == 200, response.text
    return read(CreateEmbeddingResponse, response.content)


def close(a: list[float], b: list[float]) -> bool:
    size = max(map(abs, a))
    return len(a) == len(b) and all(abs(x - y) <= 1e-4 * size for x, y in zip(a, b, strict=True))


def test_a_text_is_read(wire: httpx2.Client, target: Target) -> None:
    found = ask(wire, target, input=TEXTS[0])
    (one,) = found.data
    assert one.index == 0
    assert one.embedding
    assert found.usage.total_tokens == found.usage.prompt_tokens > 0


def test_texts_are_read_in_their_order(wire: httpx2.Client, target: Target) -> None:
    alone = [ask(wire, target, input=text).data[0].embedding for text in TEXTS]
    found = ask(wire, target, input=TEXTS)
    assert [one.index for one in found.data] == [0, 1, 2]
    assert all(close(one.embedding, other) for one, other in zip(found.data, alone, strict=True))
    assert not close(alone[0], alone[1])


def test_base64_is_the_same_numbers(wire: httpx2.Client, target: Target) -> None:
    floats = ask(wire, target, input=TEXTS[0], encoding_format="float").data[0].embedding
    body = {"model": target.embedder, "input": TEXTS[0], "encoding_format": "base64"}
    packed = base64.b64decode(
        wire.post("embeddings", json=body).json()["data"][0]["embedding"], validate=True
    )
    numbers = list(struct.unpack(f"<{len(packed) // 4}f", packed))
    assert close(floats, numbers)


def test_openais_client_reads_embeddings(client: openai.OpenAI, target: Target) -> None:
    """It asks for base64 of its own accord, and turns that into numbers."""
    found = client.embeddings.create(model=target.embedder, input=TEXTS)
    assert all(isinstance(number, float) for one in found.data for number in one.embedding)


def test_openais_client_reads_embeddings_asynchronously(target: Target) -> None:
    async def read_all() -> list[int]:
        async with target.aclient() as client:
            asked = (client.embeddings.create(model=target.embedder, input=text) for text in TEXTS)
            return [len(found.data) for found in await asyncio.gather(*asked)]

    assert asyncio.run(read_all()) == [1, 1, 1]


@pytest.mark.needs("ids")
def test_token_ids_are_read(wire: httpx2.Client, target: Target) -> None:
    one = ask(wire, target, input=[40, 41, 42])
    assert one.usage.prompt_tokens == 3
    assert len(ask(wire, target, input=[[40, 41], [42]]).data) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"input": []},
        {"input": ""},
        {"input": None},
        {"input": {}},
        {"encoding_format": "hex"},
        {"dimensions": 0},
    ],
    ids=str,
)
def test_what_cannot_be_read_is_refused(wire: httpx2.Client, target: Target, changes: dict[str, Any]) -> None:
    error(wire.post("embeddings", json={"model": target.embedder, "input": "Hello."} | changes))
