"""Calls of functions over HTTP: what a model is held to write, found in a stream and in a whole answer.

The model is random, so `choice` says what it writes; the tokens, the stream and the parser are what they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.serve.serving import running

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
HERMES = (
    "{% if tools %}{{ '<|im_start|>system\n<tools>' + tools | tojson + '</tools> Answer in <tool_call>."
    "<|im_end|>\n' }}{% endif %}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + (message['content'] or '') }}"
    "{% for call in message['tool_calls'] or [] %}{{ '<tool_call>' + call['function'] | tojson }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{{ '<|im_start|>assistant\n' }}"
)
SAID = 'Wait.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'


@pytest.fixture(scope="module")
def client(chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """A client of a server whose template has tools."""
    folder = tmp_path_factory.mktemp("tools")
    template = folder / "hermes.jinja"
    template.write_text(HERMES)
    with (
        running(chat_model, "--chat-template", str(template), log=folder / "log") as one,
        one.client() as http,
    ):
        yield http


def body(**changes: Any) -> dict[str, Any]:
    asked = {"messages": [{"role": "user", "content": "Köln?"}], "tools": [TOOL], "temperature": 0}
    return asked | {"structured_outputs": {"choice": [SAID]}} | changes


def choice(client: httpx2.Client, **changes: Any) -> dict[str, Any]:
    answer = client.post("/v1/chat/completions", json=body(**changes))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["choices"][0]
    return found


def test_a_call_is_found(client: httpx2.Client) -> None:
    found = choice(client)
    (call,) = found["message"]["tool_calls"]
    assert found["message"]["content"] == "Wait."
    assert found["finish_reason"] == "tool_calls"
    assert call["function"] == {"name": "weather", "arguments": '{"city": "Köln"}'}
    assert call["id"].startswith("call_")
    assert "index" not in call


def test_a_call_is_found_in_a_stream(client: httpx2.Client) -> None:
    answer = client.post("/v1/chat/completions", json=body(stream=True))
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    choices = [one for event in events for one in event["choices"]]
    assert "".join(one["delta"].get("content") or "" for one in choices) == "Wait."
    (call,) = [call for one in choices for call in one["delta"].get("tool_calls") or ()]
    assert (call["index"], call["function"]["arguments"]) == (0, '{"city": "Köln"}')
    assert [one["finish_reason"] for one in choices if one["finish_reason"]] == ["tool_calls"]


def test_without_tools_it_is_text(client: httpx2.Client) -> None:
    for changes in ({"tools": None}, {"tool_choice": "none"}):
        found = choice(client, **changes)
        assert found["message"]["content"] == SAID
        assert found["finish_reason"] == "stop"
        assert "tool_calls" not in found["message"]


def test_of_several_calls_the_first_is_kept_where_asked(client: httpx2.Client) -> None:
    twice = {"choice": [SAID + SAID.removeprefix("Wait.")]}
    assert len(choice(client, structured_outputs=twice)["message"]["tool_calls"]) == 2
    one = choice(client, structured_outputs=twice, parallel_tool_calls=False)
    assert len(one["message"]["tool_calls"]) == 1


def test_an_answer_is_a_call_where_one_is_demanded(client: httpx2.Client) -> None:
    tool = {"type": "function", "function": {**TOOL["function"], "parameters": _short()}}  # type: ignore[dict-item]
    for demanded in ("required", {"type": "function", "function": {"name": "weather"}}):
        found = choice(client, tools=[tool], tool_choice=demanded, structured_outputs=None)
        (call,) = found["message"]["tool_calls"]
        assert json.loads(call["function"]["arguments"])["city"] in ("Bonn", "Köln")
        assert found["message"]["content"] is None


def _short() -> dict[str, Any]:
    city = {"enum": ["Bonn", "Köln"]}
    return {"properties": {"city": city}, "required": ["city"], "additionalProperties": False}


@pytest.mark.parametrize(
    "changes",
    [
        {"tool_choice": "required", "tools": None, "structured_outputs": None},
        {"tool_choice": {"type": "function", "function": {"name": "other"}}, "structured_outputs": None},
        {"tool_choice": "required"},
        {"tool_choice": "must"},
    ],
    ids=["no tools", "no such tool", "two structures", "no such choice"],
)
def test_a_demand_that_cannot_be_met_is_refused(client: httpx2.Client, changes: dict[str, Any]) -> None:
    answer = client.post("/v1/chat/completions", json=body(**changes))
    assert answer.status_code == 400
    assert "tool" in answer.json()["error"]["message"]


def test_a_call_is_told_to_the_model_as_an_object(client: httpx2.Client) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Köln"}'}}
    messages = [
        {"role": "user", "content": "Köln?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "Rain."},
    ]
    found = client.post("/v1/render", json={"messages": messages, "tools": [TOOL]}).json()
    assert '<tool_call>{"name": "weather", "arguments": {"city": "Köln"}}' in found["prompt"]
    call["function"] = {"name": "weather", "arguments": "Köln"}
    refused = client.post("/v1/render", json={"messages": messages, "tools": [TOOL]})
    assert refused.status_code == 400
    assert "JSON object" in refused.json()["error"]["message"]
