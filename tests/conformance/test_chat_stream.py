"""POST /v1/chat/completions as a stream of server-sent events."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.conformance.target import Target, chunks, middle, read

pytestmark = pytest.mark.needs("chat")


def stream(wire: httpx2.Client, body: dict[str, Any]) -> list[ChatCompletionChunk]:
    response = wire.post("chat/completions", json=body | {"stream": True})
    return [read(ChatCompletionChunk, json.dumps(chunk)) for chunk in chunks(response)]


def once(wire: httpx2.Client, body: dict[str, Any]) -> ChatCompletion:
    response = wire.post("chat/completions", json=body)
    assert response.status_code == 200, response.text
    return read(ChatCompletion, response.content)


def texts(found: list[ChatCompletionChunk]) -> dict[int, str]:
    written: dict[int, str] = defaultdict(str)
    for chunk in found:
        for choice in chunk.choices:
            written[choice.index] += choice.delta.content or ""
    return dict(written)


def reasons(found: list[ChatCompletionChunk]) -> dict[int, str]:
    return {c.index: c.finish_reason for chunk in found for c in chunk.choices if c.finish_reason}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperature": 1},
        {"temperature": 0.7, "top_p": 0.8, "seed": 3},
        {"n": 3, "temperature": 1},
        {"max_tokens": 1},
        {"presence_penalty": 1.5, "frequency_penalty": 0.5},
    ],
    ids=str,
)
def test_a_stream_is_the_same_as_an_answer(
    wire: httpx2.Client, target: Target, changes: dict[str, Any]
) -> None:
    body = target.chat(**changes)
    streamed, whole = stream(wire, body), once(wire, body)
    assert texts(streamed) == {choice.index: choice.message.content for choice in whole.choices}
    assert reasons(streamed) == {choice.index: choice.finish_reason for choice in whole.choices}


def test_a_stop_is_never_begun(wire: httpx2.Client, target: Target) -> None:
    whole = once(wire, target.chat()).choices[0].message.content or ""
    stop = middle(whole)
    assert texts(stream(wire, target.chat(stop=[stop])))[0] == whole[: whole.index(stop)]


def test_chunks_belong_together(wire: httpx2.Client, target: Target) -> None:
    found = stream(wire, target.chat(n=2, temperature=1))
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in found}) == 1
    assert found[0].model == target.model
    for index in (0, 1):
        own = [choice for chunk in found for choice in chunk.choices if choice.index == index]
        assert own[0].delta.role == "assistant"
        assert [choice.finish_reason is not None for choice in own] == [False] * (len(own) - 1) + [True]


def test_a_stream_arrives_while_it_is_written(client: openai.OpenAI, target: Target) -> None:
    found = list(client.chat.completions.create(**target.chat(), stream=True))
    assert len([chunk for chunk in found if chunk.choices and chunk.choices[0].delta.content]) > 3


def test_usage_comes_last_and_only_when_asked_for(wire: httpx2.Client, target: Target) -> None:
    plain = stream(wire, target.chat())
    assert not [chunk for chunk in plain if chunk.usage]
    assert all(chunk.choices for chunk in plain)
    *rest, last = stream(wire, target.chat(stream_options={"include_usage": True}))
    assert last.choices == []
    assert last.usage == once(wire, target.chat()).usage
    assert not [chunk for chunk in rest if chunk.usage]
    assert texts(rest) == texts(plain)


def test_logprobs_come_with_their_tokens(wire: httpx2.Client, target: Target) -> None:
    body = target.chat(logprobs=True, top_logprobs=2)
    whole = once(wire, body).choices[0].logprobs
    assert whole is not None
    streamed = [
        token
        for chunk in stream(wire, body)
        for choice in chunk.choices
        if choice.logprobs
        for token in choice.logprobs.content or []
    ]
    assert [token.bytes for token in streamed] == [token.bytes for token in whole.content or []]
    for a, b in zip(streamed, whole.content or [], strict=True):
        assert abs(a.logprob - b.logprob) < 1e-4


def test_no_part_of_a_letter_is_sent(wire: httpx2.Client, target: Target) -> None:
    """A token may end within a letter: what is sent is what the whole answer has."""
    for seed in range(6):
        body = target.chat("写一首诗 🦜", temperature=1.5, seed=seed)
        assert texts(stream(wire, body))[0] == once(wire, body).choices[0].message.content


def test_a_bad_request_fails_before_the_stream_begins(client: openai.OpenAI, target: Target) -> None:
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**target.chat(temperature=3), stream=True)


def test_openais_helper_follows_a_stream(client: openai.OpenAI, target: Target) -> None:
    """It refuses an answer that was cut short, so this one is stopped."""
    whole = client.chat.completions.create(**target.chat()).choices[0].message.content
    stop = middle(whole)
    with client.chat.completions.stream(**target.chat(stop=[stop])) as followed:
        kinds = [event.type for event in followed]
        final = followed.get_final_completion()
    assert kinds.count("content.done") == 1
    assert final.choices[0].message.content == whole[: whole.index(stop)]
