"""Every field has a bound, and every body: what is past it is refused in OpenAI's shape."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.serve.conftest import KEY
from tests.serve.raw import exchange, status
from tests.serve.serving import Running

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HI = [{"role": "user", "content": "hi"}]
NUMBERS = (
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "max_tokens",
    "n",
    "seed",
    "top_k",
)
OURS = ("min_p", "typical_p", "repetition_penalty", "no_repeat_ngram_size", "min_tokens")
# Texts of JSON, not values: some are none.
WRONG = (
    "-3",
    "1e308",
    "1e400",
    "NaN",
    "Infinity",
    "-Infinity",
    '"1"',
    "true",
    "[]",
    "{}",
    "2" * 5000,
    str(2**64),
)


def refused(answer: httpx2.Response, *codes: int) -> dict[str, Any]:
    """The error of an answer, which has OpenAI's shape and tells nothing of this machine."""
    assert answer.status_code in (codes or (400,)), f"{answer.status_code}: {answer.text[:300]}"
    said: dict[str, Any] = answer.json()["error"]
    assert set(said) == {"message", "type", "param", "code"}
    assert len(said["message"]) <= 1000
    assert not re.search(r"Traceback|Error\b|/(work|usr|home|tmp|root)/|bestiary\.", answer.text), answer.text
    return said


def post(client: httpx2.Client, path: str, body: str | bytes, **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(path, content=body, headers={"content-type": "application/json", **named})


@pytest.mark.parametrize("field", [*NUMBERS, *OURS])
def test_numbers_out_of_their_bounds_are_refused(client: httpx2.Client, field: str) -> None:
    for wrong in WRONG:
        if field in ("frequency_penalty", "presence_penalty") and wrong == "-3":
            wrong = "-2.01"
        body = f'{{"messages": {json.dumps(HI)}, "{field}": {wrong}}}'
        said = refused(post(client, CHAT, body))
        assert said["param"] in (field, None), (wrong, said)


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": HI * 2049}, "messages"),
        (CHAT, {"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        (CHAT, {"messages": [{"role": "user"}]}, "messages[0]"),
        (CHAT, {"messages": HI, "stop": ["x"] * 17}, "stop"),
        (CHAT, {"messages": HI, "stop": "x" * 257}, "stop"),
        (CHAT, {"messages": HI, "stop": [""]}, "stop[0]"),
        (CHAT, {"messages": HI, "logit_bias": {"a": 1}}, "logit_bias.a"),
        (CHAT, {"messages": HI, "logit_bias": {"1": 101}}, "logit_bias.1"),
        (CHAT, {"messages": HI, "logit_bias": {str(i): 0 for i in range(1025)}}, "logit_bias"),
        (CHAT, {"messages": HI, "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        (CHAT, {"messages": HI, "top_logprobs": 2}, None),
        (CHAT, {"messages": HI, "stop_token_ids": [-1]}, "stop_token_ids[0]"),
        (CHAT, {"messages": HI, "stop_token_ids": [259]}, None),
        (CHAT, {"messages": HI, "allowed_token_ids": []}, "allowed_token_ids"),
        (CHAT, {"messages": HI, "stream_options": {"include_usage": True}}, None),
        (CHAT, {"messages": HI, "functions": []}, "functions"),
        (CHAT, {"messages": HI, "tool_choice": "required"}, None),
        (CHAT, {"messages": HI, "store": True}, "store"),
        (COMPLETIONS, {"prompt": []}, "prompt"),
        (COMPLETIONS, {"prompt": ["x"] * 129}, "prompt"),
        (COMPLETIONS, {"prompt": [[]]}, None),
        (COMPLETIONS, {"prompt": "x", "logprobs": 6}, "logprobs"),
        (COMPLETIONS, {"prompt": "x", "best_of": 3}, None),
        (COMPLETIONS, {"prompt": "x", "suffix": "y"}, "suffix"),
        ("/v1/embeddings", {"input": ["x"] * 2049}, "input"),
        ("/v1/embeddings", {"input": ""}, "input"),
        ("/v1/responses", {"input": "x", "previous_response_id": "y"}, "previous_response_id"),
        ("/tokenize", {"prompt": 3}, "prompt"),
        ("/detokenize", {"tokens": [10**6]}, None),
    ],
)
def test_fields_out_of_their_bounds_are_refused_by_name(
    client: httpx2.Client, path: str, fields: dict[str, Any], param: str | None
) -> None:
    assert refused(client.post(path, json=fields))["param"] == param


@pytest.mark.parametrize(
    "body",
    [
        b"", b"x", b"[]", b"null", b"{", b'{"messages": 1, "messages": 2}', b'{"a": NaN}', b"[" * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}", b'{"messages": [{"role": "user", "content": "\xff"}]}',
        b'{"messages": [{"role": "user", "content": "\\ud83d"}]}', b"\x1f\x8b\x08", b'{"a": 1} {"b": 2}',
        b'{"messages": [{"role": "user", "content": "x"}], "tools": ' + b'{"a":' * 70 + b"1" + b"}" * 71,
    ],
)  # fmt: skip
def test_what_is_no_json_is_refused_on_every_route(client: httpx2.Client, body: bytes) -> None:
    for path in (
        CHAT,
        COMPLETIONS,
        "/v1/embeddings",
        "/v1/responses",
        "/tokenize",
        "/detokenize",
        "/v1/render",
    ):
        refused(post(client, path, body))


def test_the_place_of_a_wrong_byte_is_named(client: httpx2.Client) -> None:
    assert "byte 13" in refused(post(client, "/tokenize", b'{"prompt": "x\xff"}'))["message"]


def test_a_body_that_is_too_large_or_of_another_type_is_refused(client: httpx2.Client) -> None:
    large = b'{"prompt": "' + b"x" * (4 << 20) + b'"}'

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(large), 1 << 16):
            yield large[start : start + (1 << 16)]

    refused(post(client, COMPLETIONS, large), 413)
    json_type = {"content-type": "application/json"}
    refused(client.post(COMPLETIONS, content=chunks(), headers=json_type), 413)
    refused(post(client, COMPLETIONS, b"{}", content_type="text/plain"), 415)
    refused(post(client, COMPLETIONS, b"{}", content_encoding="gzip"), 415)


def test_heads_past_16_kib_and_what_is_no_http_are_refused(server: Running) -> None:
    large = (
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: "
        + b"x" * (20 << 10)
        + b"\r\n\r\n"
    )
    later = b"GET / HTTP/9.9\r\nConnection: close\r\n\r\n"
    for data in (large, later, b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET\r\n\r\n"):
        answer = exchange(server, data)
        assert status(answer) in (400, 403, 431)
        assert b'"error"' in answer


def test_a_prompt_past_the_context_is_refused_with_both_numbers(client: httpx2.Client) -> None:
    said = refused(client.post(COMPLETIONS, json={"prompt": "x" * 600}))
    assert said["code"] == "context_length_exceeded"
    assert "600" in said["message"]
    assert "512" in said["message"]
    long = refused(client.post(CHAT, json={"messages": [{"role": "user", "content": "x" * 3_000_000}]}))
    assert long["code"] == "context_length_exceeded"
    assert refused(client.post(COMPLETIONS, json={"prompt": ""}))["code"] is None


def test_max_tokens_past_the_context_means_as_many_as_it_holds(client: httpx2.Client) -> None:
    answer = client.post(COMPLETIONS, json={"prompt": "x" * 500, "max_tokens": 2**62, "ignore_eos": True})
    assert answer.json()["usage"]["completion_tokens"] == 12
    assert answer.json()["choices"][0]["finish_reason"] == "length"


def test_an_unknown_model_is_not_found_and_paths_are_not_told(client: httpx2.Client) -> None:
    for name in ("gpt-4", "../tiny", "/etc/passwd", "x" * 512, "\u202e", "a/b"):
        said = refused(client.post(COMPLETIONS, json={"prompt": "x", "model": name}), 404)
        assert said["code"] == "model_not_found"
    refused(client.post("/v1/load_lora_adapter", json={"lora_name": "x", "lora_path": "../x"}), 403)


def test_methods_and_paths_that_are_not_there_have_errors_of_the_same_shape(client: httpx2.Client) -> None:
    refused(client.get("/v1/nothing"), 404)
    refused(client.put("/v1/models"), 405)
    refused(client.get(CHAT), 405)


def test_no_prompt_and_no_key_is_in_the_log(client: httpx2.Client, server: Running) -> None:
    secret = "correct-horse-battery-staple"
    client.post(CHAT, json={"messages": [{"role": "user", "content": secret}], "max_tokens": 2})
    client.post(CHAT, json={"messages": [{"role": "user", "content": secret}], "wrong": secret})
    client.post(CHAT, json={"messages": secret})
    said = server.said()
    assert '"event": "request"' in said
    assert secret not in said
    assert KEY not in said
