"""POST /v1/chat/completions, answered at once."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx2
import openai
import pydantic
import pytest
from openai.types.chat import ChatCompletion

from tests.conformance.target import QUESTION, TOKENS, Target, middle, read

pytestmark = pytest.mark.needs("chat")


def ask(wire: httpx2.Client, body: dict[str, Any]) -> ChatCompletion:
    response = wire.post("chat/completions", json=body)
    assert response.status_code == 200, response.text
    return read(ChatCompletion, response.content)


def text(completion: ChatCompletion) -> str:
    content = completion.choices[0].message.content
    assert content is not None
    return content


def test_an_answer_has_what_openai_promises(wire: httpx2.Client, target: Target) -> None:
    found = ask(wire, target.chat())
    (choice,) = found.choices
    assert choice.index == 0
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.message.tool_calls is None
    assert choice.finish_reason in ("stop", "length")
    assert choice.logprobs is None
    assert found.model == target.model
    assert abs(found.created - time.time()) < 3600
    assert found.id


def test_answers_have_ids_of_their_own(wire: httpx2.Client, target: Target) -> None:
    assert len({ask(wire, target.chat(max_tokens=1)).id for _ in range(4)}) == 4


def test_openais_client_reads_an_answer(client: openai.OpenAI, target: Target) -> None:
    found = client.chat.completions.create(**target.chat())
    assert isinstance(found, ChatCompletion)
    assert found.choices[0].message.content


def test_usage_adds_up(wire: httpx2.Client, target: Target) -> None:
    found = ask(wire, target.chat())
    assert found.usage is not None
    assert found.usage.prompt_tokens > 0
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    if found.choices[0].finish_reason == "length":
        assert found.usage.completion_tokens == TOKENS


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_an_answer_is_as_long_as_allowed(wire: httpx2.Client, target: Target, field: str) -> None:
    body = {name: value for name, value in target.chat().items() if name != "max_tokens"}
    found = ask(wire, body | {field: 3})
    assert found.choices[0].finish_reason == "length"
    assert found.usage is not None
    assert found.usage.completion_tokens == 3


def test_greedy_answers_are_the_same(wire: httpx2.Client, target: Target) -> None:
    assert len({text(ask(wire, target.chat())) for _ in range(3)}) == 1


def test_a_seed_makes_an_answer_the_same_again(wire: httpx2.Client, target: Target) -> None:
    def answers(seed: int) -> list[str]:
        return [text(ask(wire, target.chat(temperature=1, seed=seed))) for _ in range(2)]

    pairs = [answers(seed) for seed in (1, 2, 3, 4)]
    assert all(first == second for first, second in pairs)
    assert len({first for first, _ in pairs}) > 1, "seeds change nothing"


def test_n_answers_are_given(wire: httpx2.Client, target: Target) -> None:
    found = ask(wire, target.chat(n=3, temperature=1))
    assert sorted(choice.index for choice in found.choices) == [0, 1, 2]
    assert found.usage is not None
    assert found.usage.completion_tokens > ask(wire, target.chat(n=1, max_tokens=1)).choices[0].index
    assert ask(wire, target.chat(n=3, temperature=1)).choices == found.choices, "a seed covers all n answers"
    assert len({choice.message.content for choice in found.choices}) > 1, "n answers are drawn apart"


@pytest.mark.parametrize("several", [False, True])
def test_an_answer_ends_before_a_stop(wire: httpx2.Client, target: Target, several: bool) -> None:
    whole = text(ask(wire, target.chat()))
    stop = middle(whole)
    found = ask(wire, target.chat(stop=["\u2603\u2603", stop] if several else stop))
    assert text(found) == whole[: whole.index(stop)]
    assert found.choices[0].finish_reason == "stop"


def test_stop_may_be_null(wire: httpx2.Client, target: Target) -> None:
    assert text(ask(wire, target.chat(stop=None))) == text(ask(wire, target.chat()))


def test_fields_that_are_null_count_as_absent(wire: httpx2.Client, target: Target) -> None:
    names = ["n", "top_p", "logprobs", "top_logprobs", "presence_penalty", "frequency_penalty", "logit_bias"]
    names += ["stream", "stream_options", "user", "tools", "tool_choice", "response_format"]
    assert text(ask(wire, target.chat(**dict.fromkeys(names)))) == text(ask(wire, target.chat()))


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}],
        [
            {"role": "user", "content": "Hello."},
            {"role": "assistant", "content": "Good day."},
            {"role": "user", "content": QUESTION},
        ],
        [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}],
        [{"role": "user", "content": [{"type": "text", "text": "Count "}, {"type": "text", "text": "now."}]}],
        [{"role": "user", "content": "Zähle bis drei: 一二三 🦜\n\tUnd?"}],
    ],
    ids=["system", "history", "a part", "two parts", "unicode"],
)
def test_messages_of_all_kinds_are_read(wire: httpx2.Client, target: Target, messages: Any) -> None:
    assert ask(wire, target.chat(messages=messages)).choices[0].message.content


def test_a_part_of_text_is_the_same_as_text(wire: httpx2.Client, target: Target) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
    assert text(ask(wire, target.chat(messages=parts))) == text(ask(wire, target.chat()))


def test_logprobs_tell_of_every_token(wire: httpx2.Client, target: Target) -> None:
    found = ask(wire, target.chat(logprobs=True, top_logprobs=3))
    said = found.choices[0].logprobs
    assert said is not None
    assert said.content
    assert found.usage is not None
    assert len(said.content) in (found.usage.completion_tokens, found.usage.completion_tokens - 1)  # the end
    for token in said.content:
        tops = [top.logprob for top in token.top_logprobs]
        assert token.logprob <= 0
        assert len(tops) == 3
        assert tops == sorted(tops, reverse=True)
        assert abs(token.logprob - tops[0]) < 1e-3, "the greedy choice is the most probable"
        assert token.bytes is not None
    spelt = b"".join(bytes(token.bytes or []) for token in said.content)
    assert text(found) in (spelt.decode(errors="replace"), spelt.decode(errors="ignore")), (
        "bytes spell the text"
    )


def test_logprobs_change_no_token(wire: httpx2.Client, target: Target) -> None:
    assert text(ask(wire, target.chat(logprobs=True))) == text(ask(wire, target.chat()))


def test_a_penalty_or_a_bias_is_taken(wire: httpx2.Client, target: Target) -> None:
    for changes in ({"presence_penalty": 2}, {"frequency_penalty": -2.0}, {"logit_bias": {"5": -100}}):
        assert ask(wire, target.chat(**changes)).choices


def test_fields_that_only_tell_are_taken(wire: httpx2.Client, target: Target) -> None:
    assert ask(wire, target.chat(user="u-1")).choices


@pytest.mark.needs("structured")
def test_an_answer_in_json_is_json(wire: httpx2.Client, target: Target) -> None:
    found = ask(wire, target.chat("Answer in JSON.", response_format={"type": "json_object"}, max_tokens=200))
    if found.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text(found)), dict)


_SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green"]}, "sure": {"type": "boolean"}},
    "required": ["colour", "sure"],
    "additionalProperties": False,
}


@pytest.mark.needs("structured")
def test_an_answer_keeps_to_a_schema(wire: httpx2.Client, target: Target) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": _SCHEMA}}
    found = ask(wire, target.chat("Which colour? In JSON.", response_format=form, max_tokens=200))
    if found.choices[0].finish_reason == "stop":
        answer = json.loads(text(found))
        assert set(answer) == {"colour", "sure"}
        assert answer["colour"] in ("red", "green")
        assert isinstance(answer["sure"], bool)


@pytest.mark.needs("structured")
def test_openais_client_parses_into_a_class(client: openai.OpenAI, target: Target) -> None:
    class Answer(pydantic.BaseModel):
        sure: bool

    try:
        body = target.chat("Sure? In JSON.", max_tokens=200)
        found = client.chat.completions.parse(**body, response_format=Answer)
    except openai.LengthFinishReasonError:
        return  # white space is JSON too, and a model may write nothing else
    assert isinstance(found.choices[0].message.parsed, Answer)
