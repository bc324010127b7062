"""What is refused, and how: OpenAI's shape, and the exceptions of its client."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest

from tests.conformance.target import Target, error

CHAT, COMPLETE = pytest.mark.needs("chat"), pytest.mark.needs("completions")

# What OpenAI's reference bounds or types, broken one by one: (field, value).
BROKEN: list[tuple[str, Any]] = [
    ("messages", []), ("messages", None), ("messages", "Hello."), ("messages", {}), ("messages", [5]),
    ("messages", [{"role": "parrot", "content": "Hello."}]), ("messages", [{"content": "Hello."}]),
    ("messages", [{"role": "user"}]), ("messages", [{"role": "user", "content": 5}]),
    ("messages", [{"role": "user", "content": [{"type": "text"}]}]),
    ("messages", [{"role": "user", "content": [{"type": "parrot", "text": "Hello."}]}]),
    ("temperature", -0.1), ("temperature", 2.1), ("temperature", "hot"), ("temperature", [1]),
    ("top_p", -0.1), ("top_p", 1.1), ("top_p", "a"),
    ("n", 0), ("n", -1), ("n", 129), ("n", 1.5), ("n", "a"),
    ("max_tokens", -1), ("max_tokens", "many"), ("max_tokens", 1.5), ("max_completion_tokens", -5),
    ("presence_penalty", 2.1), ("presence_penalty", -2.1),
    ("frequency_penalty", 3), ("frequency_penalty", "a"),
    ("logit_bias", {"5": 101}), ("logit_bias", {"5": -101}),
    ("logit_bias", {"parrot": 1}), ("logit_bias", [1]),
    ("top_logprobs", 3), ("stream_options", {"include_usage": True}),
    ("stop", 5), ("stop", [5]), ("stop", {}), ("seed", "a"), ("seed", 1.5),
    ("stream", "yes"), ("logprobs", 5), ("response_format", {"type": "parrot"}), ("response_format", "json"),
]  # fmt: skip


@CHAT
@pytest.mark.parametrize(("field", "value"), BROKEN, ids=lambda value: str(value)[:40])
def test_a_field_out_of_bounds_is_refused_by_name(
    wire: httpx2.Client, target: Target, field: str, value: Any
) -> None:
    found = error(wire.post("chat/completions", json=target.chat(**{field: value})))
    assert found["type"] == "invalid_request_error"
    assert field in f"{found['param']} {found['message']}", found


@CHAT
def test_a_field_that_is_needed_is_missed_by_name(wire: httpx2.Client, target: Target) -> None:
    body = {name: value for name, value in target.chat().items() if name != "messages"}
    assert "messages" in str(error(wire.post("chat/completions", json=body)))


@CHAT
def test_an_unknown_model_is_not_found(client: openai.OpenAI, target: Target) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(**target.chat(model="no-such-model"))
    assert caught.value.code == "model_not_found"
    assert "no-such-model" in caught.value.message


@COMPLETE
def test_an_unknown_model_completes_nothing(client: openai.OpenAI, target: Target) -> None:
    with pytest.raises(openai.NotFoundError):
        client.completions.create(**target.complete(model="no-such-model"))


@pytest.mark.needs("embeddings")
def test_an_unknown_model_embeds_nothing(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="no-such-model", input="Hello.")


@CHAT
@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_longer_than_the_context_is_refused(
    client: openai.OpenAI, target: Target, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**target.chat("parrot " * 200_000), stream=stream)
    assert caught.value.code == "context_length_exceeded"


@COMPLETE
def test_a_prompt_longer_than_the_context_is_refused(client: openai.OpenAI, target: Target) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**target.complete("parrot " * 200_000))
    assert caught.value.code == "context_length_exceeded"


@COMPLETE
@pytest.mark.parametrize(
    ("field", "value"),
    [("prompt", {}), ("prompt", [None]), ("prompt", [-1]), ("prompt", [2**31]), ("prompt", [[]]),
     ("prompt", ["a", 1]), ("logprobs", 6), ("logprobs", -1), ("logprobs", True), ("echo", "yes"),
     ("best_of", 21), ("suffix", 5),
     ("max_tokens", -1), ("temperature", 5)],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_a_completions_field_out_of_bounds_is_refused(
    wire: httpx2.Client, target: Target, field: str, value: Any
) -> None:
    error(wire.post("completions", json=target.complete(**{field: value})))


_BODIES = {
    "empty": b"",
    "text": b"Hello.",
    "cut short": b'{"model": "a"',
    "a list": b"[]",
    "a number": b"5",
    "null": b"null",
    "NaN": b'{"temperature": NaN}',
    "not UTF-8": b'{"model": "\xff\xfe"}',
    "deep": b"[" * 20_000,
}


@CHAT
@pytest.mark.parametrize("body", _BODIES.values(), ids=_BODIES)
def test_a_body_that_is_no_object_is_refused(wire: httpx2.Client, body: bytes) -> None:
    error(wire.post("chat/completions", content=body, headers={"Content-Type": "application/json"}))


@CHAT
def test_a_body_of_another_kind_is_refused(wire: httpx2.Client, target: Target) -> None:
    found = wire.post("chat/completions", data={"model": target.model})
    error(found, 400, 415, 422)


@pytest.mark.parametrize("path", ["none", "chat", "chat/completions/none/none", ""])
def test_an_unknown_path_is_not_found(wire: httpx2.Client, path: str) -> None:
    error(wire.get(path), 404)


@CHAT
def test_a_method_that_a_path_lacks_is_refused(wire: httpx2.Client) -> None:
    response = wire.put("chat/completions", json={})
    error(response, 405)
    assert "POST" in response.headers["allow"]


@pytest.mark.needs("key")
@pytest.mark.parametrize("key", ["wrong", "wrong key", "a" * 4000])
def test_a_wrong_key_is_refused(target: Target, key: str) -> None:
    with target.client(key) as client, pytest.raises(openai.AuthenticationError) as caught:
        client.models.list()
    assert caught.value.code == "invalid_api_key"
    assert key not in caught.value.message or len(key) < 6


@pytest.mark.needs("key")
@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer"}, {"Authorization": "Basic a2V5"}], ids=str
)
def test_no_key_is_refused(target: Target, headers: dict[str, str]) -> None:
    with httpx2.Client(base_url=target.url, headers=headers) as client:
        for response in (client.get("models"), client.post("chat/completions", json={}), client.get("none")):
            error(response, 401)


def test_a_request_can_be_traced(client: openai.OpenAI) -> None:
    """OpenAI's header, which its client shows with every error."""
    assert client.models.with_raw_response.list().headers.get("x-request-id")
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("no-such-model")
    assert caught.value.request_id
