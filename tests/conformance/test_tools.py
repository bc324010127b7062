"""Function calls. What a model says is its own; that it can be read is the server's."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.conformance.target import Target, chunks, error, read

pytestmark = pytest.mark.needs("chat", "tools")

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tell the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
TIME = {"type": "function", "function": {"name": "time", "parameters": {"type": "object", "properties": {}}}}
QUESTION = "What is the weather in Paris?"
FORCED = {"type": "function", "function": {"name": "weather"}}


def ask(wire: httpx2.Client, body: dict[str, Any]) -> ChatCompletion:
    response = wire.post("chat/completions", json=body)
    assert response.status_code == 200, response.text
    return read(ChatCompletion, response.content)


def _calls(found: ChatCompletion) -> list[tuple[str, Any]]:
    calls = found.choices[0].message.tool_calls or []
    assert len({call.id for call in calls}) == len(calls)
    return [
        (call.function.name, json.loads(call.function.arguments)) for call in calls if call.type == "function"
    ]


@pytest.mark.parametrize("choice", ["auto", "none", None], ids=str)
def test_tools_are_taken(wire: httpx2.Client, target: Target, choice: str | None) -> None:
    found = ask(wire, target.chat(QUESTION, tools=[WEATHER, TIME], tool_choice=choice))
    if choice == "none":
        assert not found.choices[0].message.tool_calls
    for name, _ in _calls(found):
        assert name in ("weather", "time")


@pytest.mark.needs("forced")
def test_a_tool_that_must_be_called_is_called(wire: httpx2.Client, target: Target) -> None:
    body = target.chat(QUESTION, tools=[WEATHER, TIME], tool_choice=FORCED, max_tokens=200)
    found = ask(wire, body)
    ((name, arguments),) = _calls(found)
    assert name == "weather"
    assert arguments in ({"city": "Paris"}, {"city": "Rome"})
    assert found.choices[0].finish_reason in ("stop", "tool_calls")
    assert not found.choices[0].message.content


@pytest.mark.needs("forced")
def test_some_tool_is_called_when_one_is_required(wire: httpx2.Client, target: Target) -> None:
    body = target.chat(QUESTION, tools=[WEATHER], tool_choice="required", max_tokens=200)
    found = ask(wire, body)
    assert _calls(found)
    assert found.choices[0].finish_reason == "tool_calls"


@pytest.mark.needs("forced")
def test_one_tool_is_called_where_no_more_are_wanted(wire: httpx2.Client, target: Target) -> None:
    body = target.chat(QUESTION, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False)
    assert len(_calls(ask(wire, body | {"max_tokens": 200}))) == 1


@pytest.mark.needs("forced")
def test_a_call_is_streamed(wire: httpx2.Client, target: Target) -> None:
    body = target.chat(QUESTION, tools=[WEATHER, TIME], tool_choice=FORCED, max_tokens=200)
    whole = ask(wire, body).choices[0]
    found = [
        read(ChatCompletionChunk, json.dumps(chunk))
        for chunk in chunks(wire.post("chat/completions", json=body | {"stream": True}))
    ]
    deltas = [call for chunk in found for choice in chunk.choices for call in choice.delta.tool_calls or []]
    assert deltas[0].id
    assert deltas[0].type == "function"
    assert {delta.index for delta in deltas} == {0}
    assert "".join((delta.function and delta.function.name) or "" for delta in deltas) == "weather"
    written = "".join((delta.function and delta.function.arguments) or "" for delta in deltas)
    assert whole.message.tool_calls
    assert whole.message.tool_calls[0].type == "function"
    assert written == whole.message.tool_calls[0].function.arguments
    assert [c.finish_reason for chunk in found for c in chunk.choices if c.finish_reason] == [
        whole.finish_reason
    ]


def test_a_result_is_read(wire: httpx2.Client, target: Target) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city":"Paris"}'},
    }
    messages = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Rain."},
    ]
    assert ask(wire, target.chat(messages=messages, tools=[WEATHER])).choices[0].message.role == "assistant"


@pytest.mark.needs("forced")
def test_openais_client_reads_a_call(client: openai.OpenAI, target: Target) -> None:
    body = target.chat(QUESTION, tools=[WEATHER], tool_choice=FORCED, max_tokens=200)
    found = client.chat.completions.create(**body)
    assert found.choices[0].message.tool_calls[0].function.name == "weather"


@pytest.mark.parametrize(
    "changes",
    [
        {"tools": [{"type": "parrot"}]},
        {"tools": [{"type": "function"}]},
        {"tools": [{"type": "function", "function": {"name": ""}}]},
        {"tools": [{"type": "function", "function": {"name": "a b!"}}]},
        {"tools": [WEATHER], "tool_choice": "some"},
        {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "none"}}},
        {"tool_choice": "required"},
        {"tools": [WEATHER] * 129},
        {"tools": "weather"},
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_tools_that_are_none_are_refused(
    wire: httpx2.Client, target: Target, changes: dict[str, Any]
) -> None:
    error(wire.post("chat/completions", json=target.chat(QUESTION, **changes)))
