"""POST /v1/completions: text that is continued."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest
from openai.types import Completion

from tests.conformance.target import TOKENS, Target, chunks, middle, read

pytestmark = pytest.mark.needs("completions")
PROMPT = "One, two, three,"


def ask(wire: httpx2.Client, body: dict[str, Any]) -> Completion:
    response = wire.post("completions", json=body)
    assert response.status_code == 200, response.text
    return read(Completion, response.content)


def score(wire: httpx2.Client, body: dict[str, Any]) -> Completion:
    """Ask for a prompt's logprobs. OpenAI's are null for its first token; the client's class says floats."""
    response = wire.post("completions", json=body)
    assert response.status_code == 200, response.text
    found = response.json()
    said = found["choices"][0]["logprobs"]
    assert said["token_logprobs"][0] is said["top_logprobs"][0] is None, (
        "nothing comes before the first token"
    )
    said["token_logprobs"][0], said["top_logprobs"][0] = 0.0, {}
    return read(Completion, json.dumps(found))


def stream(wire: httpx2.Client, body: dict[str, Any]) -> list[Completion]:
    found = chunks(wire.post("completions", json=body | {"stream": True}))
    for chunk in found:  # the class calls a stream's chunks completions, whose reason is never null
        for choice in chunk["choices"]:
            choice["finish_reason"] = choice["finish_reason"] or "stop"
    return [read(Completion, json.dumps(chunk)) for chunk in found]


def test_a_completion_has_what_openai_promises(wire: httpx2.Client, target: Target) -> None:
    found = ask(wire, target.complete(PROMPT))
    (choice,) = found.choices
    assert choice.index == 0
    assert choice.text
    assert choice.logprobs is None
    assert found.model == target.model
    assert found.usage is not None
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens


def test_openais_client_reads_a_completion(client: openai.OpenAI, target: Target) -> None:
    assert client.completions.create(**target.complete(PROMPT)).choices[0].text


def test_several_prompts_are_answered_in_their_order(wire: httpx2.Client, target: Target) -> None:
    prompts = [PROMPT, "The sky is", "A, B, C,"]
    alone = [ask(wire, target.complete(prompt)).choices[0].text for prompt in prompts]
    found = ask(wire, target.complete(prompts))
    assert [choice.index for choice in found.choices] == [0, 1, 2]
    assert [choice.text for choice in found.choices] == alone


def test_n_of_several_prompts_are_counted_through(wire: httpx2.Client, target: Target) -> None:
    found = ask(wire, target.complete([PROMPT, "The sky is"], n=2, temperature=1))
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]


@pytest.mark.needs("ids")
def test_token_ids_are_prompts(wire: httpx2.Client, target: Target) -> None:
    one = ask(wire, target.complete([40, 41, 42]))
    assert one.usage is not None
    assert one.usage.prompt_tokens == 3
    several = ask(wire, target.complete([[40, 41, 42], [43, 44]]))
    assert several.choices[0].text == one.choices[0].text
    assert len(several.choices) == 2


def test_an_echo_begins_with_the_prompt(wire: httpx2.Client, target: Target) -> None:
    plain = ask(wire, target.complete(PROMPT)).choices[0].text
    assert ask(wire, target.complete(PROMPT, echo=True)).choices[0].text == PROMPT + plain


def _logprobs(choice: Any) -> Any:
    said = choice.logprobs
    assert said is not None
    assert len(said.tokens) == len(said.token_logprobs) == len(said.text_offset) == len(said.top_logprobs)
    return said


def test_logprobs_tell_of_every_token(wire: httpx2.Client, target: Target) -> None:
    found = ask(wire, target.complete(PROMPT, logprobs=3))
    said = _logprobs(found.choices[0])
    assert found.usage is not None
    assert len(said.tokens) in (found.usage.completion_tokens, found.usage.completion_tokens - 1)  # the end
    assert all(value <= 0 for value in said.token_logprobs)
    assert all(3 <= len(top) <= 4 for top in said.top_logprobs), "the chosen one may be a fourth"
    assert said.text_offset == sorted(said.text_offset)


@pytest.mark.needs("scoring")
def test_a_prompt_is_scored(wire: httpx2.Client, target: Target) -> None:
    said = _logprobs(score(wire, target.complete(PROMPT, echo=True, logprobs=1)).choices[0])
    assert all(value <= 0 for value in said.token_logprobs)
    alone = _logprobs(ask(wire, target.complete(PROMPT, logprobs=1)).choices[0])
    assert said.tokens[-len(alone.tokens) :] == alone.tokens
    assert said.text_offset[0] == 0


@pytest.mark.needs("scoring")
def test_nothing_is_written_when_only_the_prompt_is_asked_for(wire: httpx2.Client, target: Target) -> None:
    found = score(wire, target.complete(PROMPT, echo=True, logprobs=1, max_tokens=0))
    assert found.choices[0].text == PROMPT
    assert found.usage is not None
    assert found.usage.completion_tokens == 0


@pytest.mark.parametrize(
    "changes",
    [{}, {"temperature": 1}, {"n": 2, "temperature": 1}, {"echo": True}, {"prompt": [PROMPT, "The sky is"]}],
    ids=str,
)
def test_a_stream_is_the_same_as_a_completion(
    wire: httpx2.Client, target: Target, changes: dict[str, Any]
) -> None:
    body = target.complete(PROMPT) | changes
    written: dict[int, str] = {}
    for chunk in stream(wire, body):
        for choice in chunk.choices:
            written[choice.index] = written.get(choice.index, "") + choice.text
    assert written == {choice.index: choice.text for choice in ask(wire, body).choices}


def test_usage_comes_last(wire: httpx2.Client, target: Target) -> None:
    *rest, last = stream(wire, target.complete(PROMPT, stream_options={"include_usage": True}))
    assert last.choices == []
    assert last.usage == ask(wire, target.complete(PROMPT)).usage
    assert not [chunk for chunk in rest if chunk.usage]


def test_a_completion_ends_before_a_stop(wire: httpx2.Client, target: Target) -> None:
    whole = ask(wire, target.complete(PROMPT)).choices[0].text
    stop = middle(whole)
    found = ask(wire, target.complete(PROMPT, stop=stop)).choices[0]
    assert found.text == whole[: whole.index(stop)]
    assert found.finish_reason == "stop"


def test_without_a_length_sixteen_tokens_are_written(wire: httpx2.Client, target: Target) -> None:
    """OpenAI's default of max_tokens."""
    body = {name: value for name, value in target.complete(PROMPT).items() if name != "max_tokens"}
    found = ask(wire, body)
    assert found.usage is not None
    assert found.usage.completion_tokens <= 16 < TOKENS


@pytest.mark.needs("ranking")
def test_the_best_of_several_is_given(wire: httpx2.Client, target: Target) -> None:
    found = ask(wire, target.complete(PROMPT, best_of=3, temperature=1))
    assert len(found.choices) == 1


@pytest.mark.parametrize("changes", [{"best_of": 2, "n": 3}, {"best_of": 2, "stream": True}], ids=str)
def test_the_best_of_fewer_or_of_a_stream_is_refused(
    client: openai.OpenAI, target: Target, changes: dict[str, Any]
) -> None:
    with pytest.raises(openai.BadRequestError):
        client.completions.create(**target.complete(PROMPT, **changes))
