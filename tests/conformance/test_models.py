"""GET /v1/models and /v1/models/{model}."""

from __future__ import annotations

import asyncio

import httpx2
import openai
import pytest
from openai.types import Model

from tests.conformance.target import Target, error, read


def test_the_model_is_listed(client: openai.OpenAI, target: Target) -> None:
    listed = client.models.list()
    assert listed.object == "list"
    assert target.model in [model.id for model in listed]


def test_every_model_listed_has_what_openai_promises(wire: httpx2.Client, target: Target) -> None:
    response = wire.get("models")
    assert response.status_code == 200
    body = response.json()
    assert body["object"] == "list"
    assert body["data"]
    for model in body["data"]:
        Model.model_validate(model, strict=True)


def test_a_model_is_retrieved_by_its_name(wire: httpx2.Client, client: openai.OpenAI, target: Target) -> None:
    assert client.models.retrieve(target.model).id == target.model
    assert read(Model, wire.get(f"models/{target.model}").content).object == "model"


def test_models_are_listed_asynchronously(target: Target) -> None:
    async def names() -> list[str]:
        async with target.aclient() as client:
            return [model.id async for model in client.models.list()]

    assert target.model in asyncio.run(names())


@pytest.mark.parametrize("name", ["no-such-model", "a/b/c", "..%2f..%2fetc%2fpasswd", "%00", "é"])
def test_an_unknown_model_is_not_found(client: openai.OpenAI, wire: httpx2.Client, name: str) -> None:
    error(wire.get(f"models/{name}"), 404)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(name)
