"""A server's OpenAPI file says what it answers, good and bad requests alike."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.conformance.contract import Contract
from tests.conformance.target import SECONDS, Target

pytestmark = pytest.mark.needs("contract")


@pytest.fixture(scope="module")
def contract(target: Target) -> Contract:
    response = httpx2.get(f"{target.root}/openapi.json", headers=target.headers, timeout=SECONDS)
    assert response.status_code == 200
    return Contract(response.json())


def test_the_file_is_openapi_3(contract: Contract) -> None:
    assert contract.document["openapi"].startswith("3.")
    assert {"/v1/models", "/v1/chat/completions", "/v1/completions"} <= set(contract.document["paths"])


def test_models_keep_to_the_file(wire: httpx2.Client, contract: Contract) -> None:
    assert contract.problem(wire.get("models")) is None


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"stream": True},
        {"logprobs": True, "top_logprobs": 2},
        {"n": 2, "temperature": 1},
        {"messages": []},
        {"temperature": 3},
        {"model": "no-such-model"},
        {"messages": [{"role": "user", "content": "parrot " * 200_000}]},
    ],
    ids=lambda changes: str(changes)[:40],
)
@pytest.mark.needs("chat")
def test_chat_keeps_to_the_file(
    wire: httpx2.Client, target: Target, contract: Contract, changes: dict[str, Any]
) -> None:
    assert contract.problem(wire.post("chat/completions", json=target.chat(**changes))) is None


@pytest.mark.parametrize(
    "changes", [{}, {"stream": True}, {"logprobs": 2}, {"echo": True}, {"prompt": {}}, {"n": 99}], ids=str
)
@pytest.mark.needs("completions")
def test_completions_keep_to_the_file(
    wire: httpx2.Client, target: Target, contract: Contract, changes: dict[str, Any]
) -> None:
    assert contract.problem(wire.post("completions", json=target.complete(**changes))) is None


@pytest.mark.parametrize("changes", [{}, {"encoding_format": "base64"}, {"input": []}], ids=str)
@pytest.mark.needs("embeddings")
def test_embeddings_keep_to_the_file(
    wire: httpx2.Client, target: Target, contract: Contract, changes: dict[str, Any]
) -> None:
    body = {"model": target.embedder, "input": "Hello."} | changes
    assert contract.problem(wire.post("embeddings", json=body)) is None


@pytest.mark.parametrize("changes", [{}, {"stream": True}, {"input": []}], ids=str)
@pytest.mark.needs("responses")
def test_responses_keep_to_the_file(
    wire: httpx2.Client, target: Target, contract: Contract, changes: dict[str, Any]
) -> None:
    body = {"model": target.model, "input": "Hello.", "max_output_tokens": 16, "store": False} | changes
    assert contract.problem(wire.post("responses", json=body)) is None
