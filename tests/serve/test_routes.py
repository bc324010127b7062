"""What is answered at each path: shapes, streams that say what whole answers say, and what a model sees."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bestiary import LLM, SamplingParams

HI = [{"role": "user", "content": "hi"}]


def events(answer: httpx2.Response) -> list[Any]:
    """The events of a stream, which ends with [DONE]."""
    data = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [json.loads(one) for one in data[:-1]]


def chat(client: httpx2.Client, **fields: Any) -> httpx2.Response:
    answer = client.post("/v1/chat/completions", json={"messages": HI, "max_tokens": 12, **fields})
    assert answer.status_code == 200, answer.text
    return answer


def test_an_answer_is_the_one_that_the_library_gives(client: httpx2.Client, chat_model: Path) -> None:
    params = SamplingParams(temperature=0.8, seed=5, max_tokens=12)
    with LLM(chat_model, threads=1) as llm:
        expected = llm.chat(HI, params)[0].outputs[0]
    said = chat(client, temperature=0.8, seed=5, return_token_ids=True).json()
    choice = said["choices"][0]
    assert choice["token_ids"] == expected.token_ids
    assert choice["message"]["content"] == expected.text
    assert choice["finish_reason"] == expected.finish_reason
    assert said["usage"]["completion_tokens"] == len(expected.token_ids)
    assert said["usage"]["prompt_tokens"] == len(said["prompt_token_ids"])


def test_a_stream_says_what_a_whole_answer_says(client: httpx2.Client) -> None:
    fields = {"seed": 9, "n": 3, "logprobs": True, "top_logprobs": 2, "return_token_ids": True}
    whole = chat(client, **fields).json()
    parts = events(chat(client, **fields, stream=True, stream_options={"include_usage": True}))
    assert parts[-1]["usage"] == {
        **whole["usage"],
        "prompt_tokens_details": parts[-1]["usage"]["prompt_tokens_details"],
    }
    assert parts[-1]["choices"] == []
    for choice in whole["choices"]:
        mine = [one for part in parts for one in part["choices"] if one["index"] == choice["index"]]
        assert mine[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(one["delta"].get("content", "") for one in mine) == choice["message"]["content"]
        assert [id for one in mine for id in one.get("token_ids", ())] == choice["token_ids"]
        assert [one["finish_reason"] for one in mine if one["finish_reason"]] == [choice["finish_reason"]]
        entries = [entry for one in mine if one["logprobs"] for entry in one["logprobs"]["content"]]
        assert [entry["token"] for entry in entries] == [e["token"] for e in choice["logprobs"]["content"]]


def test_a_logprob_entry_has_the_token_its_bytes_and_the_likeliest(client: httpx2.Client) -> None:
    choice = chat(client, temperature=0, logprobs=True, top_logprobs=3, return_token_ids=True).json()[
        "choices"
    ][0]
    entries = choice["logprobs"]["content"]
    assert len(entries) == len(choice["token_ids"])
    for entry in entries:
        tops = [one["logprob"] for one in entry["top_logprobs"]]
        assert len(tops) == 3
        assert tops == sorted(tops, reverse=True)
        assert entry["logprob"] == tops[0]  # greedy
        assert all(0 <= byte < 256 for byte in entry["bytes"])


def test_completions_take_texts_and_ids_and_number_the_answers(client: httpx2.Client) -> None:
    fields = {"max_tokens": 4, "seed": 3, "echo": True, "n": 2}
    texts = client.post("/v1/completions", json={"prompt": ["ab", "cd"], **fields}).json()
    ids = client.post("/v1/completions", json={"prompt": [[64, 65], [66, 67]], **fields}).json()
    assert [one["index"] for one in texts["choices"]] == [0, 1, 2, 3]
    assert [one["text"][:2] for one in texts["choices"]] == ["ab", "ab", "cd", "cd"]
    assert [one["text"] for one in ids["choices"]] == [one["text"] for one in texts["choices"]]
    assert texts["usage"]["prompt_tokens"] == 4
    alone = client.post("/v1/completions", json={"prompt": "cd", **fields}).json()
    assert [one["text"] for one in alone["choices"]] == [one["text"] for one in texts["choices"][2:]]


def test_offsets_of_completion_logprobs_lie_in_the_text(client: httpx2.Client) -> None:
    said = client.post(
        "/v1/completions", json={"prompt": "ab", "logprobs": 2, "seed": 1, "max_tokens": 20}
    ).json()
    choice = said["choices"][0]
    found = choice["logprobs"]
    assert len(found["tokens"]) == len(found["token_logprobs"]) == len(found["top_logprobs"]) == 20
    assert found["text_offset"] == sorted(found["text_offset"])
    assert found["text_offset"][0] == 0
    assert found["text_offset"][-1] <= len(choice["text"])


def test_responses_stream_the_events_of_a_whole_response(client: httpx2.Client) -> None:
    asked = {"input": "hi", "instructions": "be brief", "seed": 4, "max_output_tokens": 6}
    whole = client.post("/v1/responses", json=asked).json()
    text = client.post("/v1/responses", json={**asked, "stream": True}).text
    parts = [
        json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")
    ]
    names = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
    assert names == [part["type"] for part in parts]
    assert [part["sequence_number"] for part in parts] == list(range(len(parts)))
    assert names[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert names[-1] == f"response.{whole['status']}"
    told = "".join(part["delta"] for part in parts if part["type"] == "response.output_text.delta")
    assert (
        told
        == whole["output"][0]["content"][0]["text"]
        == parts[-1]["response"]["output"][0]["content"][0]["text"]
    )
    assert whole["store"] is False


def test_embeddings_are_the_librarys_in_both_encodings(client: httpx2.Client, chat_model: Path) -> None:
    with LLM(chat_model, threads=1) as llm:
        expected = llm.embed(["one", "two"])
    asked = {"input": ["one", "two"]}
    numbers = client.post("/v1/embeddings", json=asked).json()
    coded = client.post("/v1/embeddings", json={**asked, "encoding_format": "base64"}).json()
    for i, row in enumerate(expected.tolist()):
        assert numbers["data"][i]["index"] == i
        assert numbers["data"][i]["embedding"] == pytest.approx(row, abs=1e-5)
        packed = base64.b64decode(coded["data"][i]["embedding"])
        assert list(struct.unpack(f"<{len(row)}f", packed)) == numbers["data"][i]["embedding"]
    assert client.post("/v1/embeddings", json={**asked, "dimensions": 3}).status_code == 400


def test_render_shows_that_a_text_forges_no_turn(client: httpx2.Client) -> None:
    said = client.post("/v1/render", json={"messages": [{"role": "user", "content": "<|im_end|>"}]}).json()
    control = [one["text"] for one in said["tokens"] if one["control"]]
    assert control == ["<|im_start|>", "<|im_end|>", "<|im_start|>"]
    assert [one["id"] for one in said["tokens"]] == said["token_ids"]
    assert said["prompt"].count("<|im_end|>") == 2


def test_tokenize_and_detokenize_are_inverse(client: httpx2.Client) -> None:
    text = "Grüße, 世界 <|im_end|>"
    said = client.post("/tokenize", json={"prompt": text}).json()
    assert said["count"] == len(said["tokens"]) == len(said["token_strs"])
    assert client.post("/detokenize", json={"tokens": said["tokens"]}).json() == {"prompt": text}


def test_models_card_and_health_tell_what_there_is(client: httpx2.Client) -> None:
    (model,) = client.get("/v1/models").json()["data"]
    assert model["id"] == "tiny"
    assert model["context"] == 512
    assert client.get("/v1/models/tiny").json() == model
    assert client.get("/v1/models/other").status_code == 404
    assert client.get("/v1/card").json() == {"id": "tiny", "entry": None}
    assert client.get("/health").json()["status"] == "ok"


def test_counts_are_prometheus_text(client: httpx2.Client) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    answer = client.get("/metrics")
    names = {family.name for family in text_string_to_metric_families(answer.text)}
    assert {"bestiary_requests", "bestiary_generation_tokens", "bestiary_engine_free"} <= names


def test_the_api_is_described_route_by_route(client: httpx2.Client) -> None:
    from bestiary.serve.guard import ACCESS

    said = client.get("/openapi.json").json()
    assert said["openapi"].startswith("3.1")
    assert {path.replace("{id}", "{id:path}") for path in said["paths"]} == set(ACCESS)


def test_the_page_and_its_files_bind_the_browser(client: httpx2.Client) -> None:
    answer = client.get("/", headers={"Authorization": ""})
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    for path in ("/../settings.py", "/%2e%2e/settings.py", "/page.py", "/__init__.py"):
        assert client.get(path).status_code == 404


def test_a_prompt_was_there_before_only_where_it_was_asked_before(client: httpx2.Client) -> None:
    """Three answers share what one computed, which is no cache; the next request finds two pages."""
    prompt = [(7 * i * i + 3) % 200 for i in range(40)]
    body = {"prompt": prompt, "n": 3, "max_tokens": 2, "temperature": 1}

    def cached() -> int:
        usage = client.post("/v1/completions", json=body).json()["usage"]
        return int(usage["prompt_tokens_details"]["cached_tokens"])

    assert (cached(), cached()) == (0, 32)
