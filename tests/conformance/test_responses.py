"""POST /v1/responses, the part for text."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pydantic
import pytest
from openai.types.responses import Response, ResponseStreamEvent

from tests.conformance.target import QUESTION, TOKENS, Target, error, events, read

pytestmark = pytest.mark.needs("responses")
_EVENT: pydantic.TypeAdapter[ResponseStreamEvent] = pydantic.TypeAdapter(ResponseStreamEvent)


def body(target: Target, **changes: Any) -> dict[str, Any]:
    fields = {"model": target.model, "input": QUESTION, "max_output_tokens": TOKENS, "temperature": 0}
    return {**fields, "store": False, **changes}


def ask(wire: httpx2.Client, fields: dict[str, Any]) -> Response:
    response = wire.post("responses", json=fields)
    assert response.status_code == 200, response.text
    return read(Response, response.content)


def test_a_response_has_what_openai_promises(wire: httpx2.Client, target: Target) -> None:
    found = ask(wire, body(target))
    assert found.object == "response"
    assert found.status in ("completed", "incomplete")
    assert found.error is None
    assert found.model == target.model
    (item,) = found.output
    assert item.type == "message"
    assert item.role == "assistant"
    assert item.status == found.status
    (part,) = item.content
    assert part.type == "output_text"
    assert part.annotations == []
    assert found.output_text == part.text
    assert found.usage is not None
    assert found.usage.total_tokens == found.usage.input_tokens + found.usage.output_tokens


def test_openais_client_reads_a_response(client: openai.OpenAI, target: Target) -> None:
    assert client.responses.create(**body(target)).output_text


def test_a_response_that_is_cut_short_says_so(wire: httpx2.Client, target: Target) -> None:
    found = ask(wire, body(target, max_output_tokens=16, input="Count to a thousand."))
    if found.status == "incomplete":
        assert found.incomplete_details is not None
        assert found.incomplete_details.reason == "max_output_tokens"
        assert found.usage is not None
        assert found.usage.output_tokens == 16
    else:
        assert found.incomplete_details is None


@pytest.mark.needs("chat")
def test_a_response_is_what_chat_answers(wire: httpx2.Client, target: Target) -> None:
    chat = wire.post("chat/completions", json=target.chat()).json()
    assert ask(wire, body(target)).output_text == chat["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    "changes",
    [
        {"input": [{"role": "user", "content": QUESTION}]},
        {"input": [{"type": "message", "role": "user", "content": QUESTION}]},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": QUESTION}]}]},
    ],
    ids=["a message", "a typed message", "a part"],
)
def test_an_input_is_read_in_every_form(wire: httpx2.Client, target: Target, changes: dict[str, Any]) -> None:
    assert ask(wire, body(target, **changes)).output_text == ask(wire, body(target)).output_text


def test_instructions_are_a_system_message(wire: httpx2.Client, target: Target) -> None:
    found = ask(wire, body(target, instructions="Answer in French."))
    messages = [{"role": "system", "content": "Answer in French."}, {"role": "user", "content": QUESTION}]
    assert found.output_text == ask(wire, body(target, input=messages)).output_text
    assert found.instructions == "Answer in French."


def test_a_conversation_goes_on(client: openai.OpenAI, target: Target) -> None:
    """What was answered is sent back as it came, which is how OpenAI's guide keeps a conversation."""
    first = client.responses.create(**body(target))
    history: list[Any] = [{"role": "user", "content": QUESTION}, *first.output]
    history.append({"role": "user", "content": "And then?"})
    assert client.responses.create(**body(target, input=history)).output_text


def _stream(wire: httpx2.Client, fields: dict[str, Any]) -> list[Any]:
    response = wire.post("responses", json=fields | {"stream": True})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    found = [(name, data) for name, data in events(response.text) if data != "[DONE]"]
    assert [name for name, _ in found] == [json.loads(data)["type"] for _, data in found], "events are named"
    return [_EVENT.validate_json(data, strict=True) for _, data in found]


def test_events_come_in_openais_order(wire: httpx2.Client, target: Target) -> None:
    found = _stream(wire, body(target))
    assert [event.sequence_number for event in found] == list(range(len(found)))
    kinds = [event.type.removeprefix("response.") for event in found]
    deltas = kinds.count("output_text.delta")
    assert deltas > 1
    assert kinds == [
        "created", "in_progress", "output_item.added", "content_part.added", *["output_text.delta"] * deltas,
        "output_text.done", "content_part.done", "output_item.done", found[-1].response.status,
    ]  # fmt: skip


def test_a_stream_is_the_same_as_a_response(wire: httpx2.Client, target: Target) -> None:
    found, whole = _stream(wire, body(target)), ask(wire, body(target))
    text = "".join(event.delta for event in found if event.type == "response.output_text.delta")
    (done,) = (event.text for event in found if event.type == "response.output_text.done")
    assert text == done == whole.output_text == found[-1].response.output_text
    assert found[-1].response.usage == whole.usage
    ids = {event.item_id for event in found if event.type == "response.output_text.delta"}
    assert ids == {found[-1].response.output[0].id}


def test_openais_helper_follows_a_stream(client: openai.OpenAI, target: Target) -> None:
    fields = {name: value for name, value in body(target).items() if name != "store"}
    with client.responses.stream(**fields) as followed:
        kinds = [event.type for event in followed]
        assert "response.output_text.delta" in kinds
        if kinds[-1] == "response.completed":  # the helper gives no response that was cut short
            assert followed.get_final_response().output_text


@pytest.mark.needs("structured")
def test_a_response_keeps_to_a_schema(wire: httpx2.Client, target: Target) -> None:
    rules: dict[str, Any] = {
        "type": "object",
        "properties": {"sure": {"type": "boolean"}},
        "required": ["sure"],
    }
    rules["additionalProperties"] = False
    form = {"format": {"type": "json_schema", "name": "answer", "strict": True, "schema": rules}}
    found = ask(wire, body(target, text=form, max_output_tokens=200))
    if found.status == "completed":
        assert set(json.loads(found.output_text)) == {"sure"}


@pytest.mark.parametrize(
    "changes",
    [
        {"input": []},
        {"input": None},
        {"temperature": 3},
        {"max_output_tokens": 0},
        {"previous_response_id": "resp_none"},
        {"input": [{"role": "parrot", "content": "a"}]},
        {"model": 5},
    ],
    ids=str,
)
def test_what_cannot_be_answered_is_refused(
    wire: httpx2.Client, target: Target, changes: dict[str, Any]
) -> None:
    error(wire.post("responses", json=body(target, **changes)), 400, 404)


def test_an_unknown_response_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_none")
