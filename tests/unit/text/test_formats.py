"""Formats by name, where what a message says or lacks changes what stands around it; without references."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from bestiary.errors import RequestError
from bestiary.text import open_tokenizer, prompts
from bestiary.text.chat import ChatTemplate
from tests.unit.text.chat_models import make
from tests.unit.text.chat_styles import STYLES, Style

ASKED: dict[str, Any] = {"role": "user", "content": " Weather? "}
HISTORY = (
    "### Instruction:\nUser:  Weather? \nAssistant: Rain.\n\n"
    "### Input:\nSystem: Be kind.\nUser:  Weather? \n\n### Response:\n"
)


def opened(name: str, tmp_path: Any) -> ChatTemplate:
    style = STYLES["mistral"]
    needs = prompts.get(name).needs
    tokenizer = make(replace(style, control=(*style.control, *needs)), "byte-level", tmp_path).tokenizer
    return ChatTemplate(prompts.get(name), tokenizer, tokens={"bos_token": "<s>", "eos_token": "</s>"})


def said(name: str, messages: list[dict[str, Any]], tmp_path: Any, **options: Any) -> str:
    return opened(name, tmp_path).encode(messages, **options).text


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


@pytest.mark.parametrize(
    ("name", "messages", "want"),
    [
        # A system text that says nothing is left out, and keeps the usual one away.
        ("mistral-v1", [system(""), ASKED], "<s>[INST]  Weather?  [/INST]"),
        ("mistral-v1", [system("Hi"), ASKED], "<s>[INST] Hi\n\n Weather?  [/INST]"),
        ("falcon-chat", [system(""), ASKED], "User:  Weather? \nFalcon:"),
        ("vicuna-v1.1", [system(""), ASKED], " USER:  Weather?  ASSISTANT:"),
        # Meta strips a question with the system text before it, so that only its end is stripped.
        ("llama2-meta", [ASKED], "<s>[INST] Weather? [/INST]"),
        ("llama2-meta", [system("Hi"), ASKED], "<s>[INST] <<SYS>>\nHi\n<</SYS>>\n\n Weather? [/INST]"),
        ("guanaco", [ASKED], "### Instruction:\n\n### Input:\nUser:  Weather? \n\n### Response:\n"),
        (
            "guanaco",
            [system("Be kind."), ASKED, {"role": "assistant", "content": "Rain."}, ASKED],
            HISTORY,
        ),
    ],
)  # fmt: skip
def test_what_stands_around_a_message(
    name: str, messages: list[dict[str, Any]], want: str, tmp_path: Any
) -> None:
    assert said(name, messages, tmp_path) == want


def test_the_first_default_of_llama_2_has_two_spaces(tmp_path: Any) -> None:
    text = said("llama2-meta-default", [ASKED], tmp_path)
    assert text.startswith("<s>[INST] <<SYS>>\nYou are a helpful, respectful and honest assistant.")
    assert "while being safe.  Your answers" in text
    assert text.endswith("share false information.\n<</SYS>>\n\n Weather? [/INST]")


@pytest.mark.parametrize(
    ("result", "want"),
    [("22", "22"), ("sunny", '"sunny"'), ('{"a":[1,2]}', '{"a": [1, 2]}'), ('say "é"\n', '"say \\"é\\"\\n"'),
     ("[" * 9999, '"' + "[" * 9999 + '"')],
    ids=["a number", "a word", "an object", "a text", "a bomb"],
)  # fmt: skip
def test_what_a_tool_says_is_json(result: str, want: str, tmp_path: Any) -> None:
    call = {"id": "123456789", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}
    messages: list[dict[str, Any]] = [
        ASKED,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "123456789", "content": result},
    ]
    assert said("mistral-v3", messages, tmp_path) == (
        '<s>[INST] Weather? [/INST][TOOL_CALLS][{"name": "weather", "arguments": {"city": "Rome"}, '
        f'"id": "123456789"}}]</s>[TOOL_RESULTS]{{"content": {want}, "call_id": "123456789"}}[/TOOL_RESULTS]'
    )


def test_arguments_may_be_an_object_already(tmp_path: Any) -> None:
    call = {"function": {"name": "f", "arguments": {"x": 1}}}
    text = said("mistral-v3", [ASKED, {"role": "assistant", "content": None, "tool_calls": [call]}], tmp_path)
    assert text.endswith('[TOOL_CALLS][{"name": "f", "arguments": {"x": 1}}]</s>')


@pytest.mark.parametrize(
    ("name", "messages", "named"),
    [
        ("mistral-v3", [ASKED, ASKED], "user does not follow user"),
        ("mistral-v3", [{"role": "assistant", "content": "Hi"}], "assistant does not follow"),
        ("guanaco", [ASKED, ASKED], "take turns"),
        ("alpaca", [ASKED, {"role": "assistant", "content": "Hi"}, ASKED], "second question"),
        ("koala", [system("Hi"), ASKED], "no place for the role 'system'"),
    ],
)
def test_what_has_no_place_is_refused(
    name: str, messages: list[dict[str, Any]], named: str, tmp_path: Any
) -> None:
    with pytest.raises(RequestError, match=named):
        said(name, messages, tmp_path)


@pytest.mark.parametrize(
    "style", [style for style in STYLES.values() if style.name], ids=lambda style: style.name
)
@pytest.mark.parametrize("text", ["x", " spaces around \n"])
def test_a_format_by_its_name_writes_what_its_templates_do(style: Style, text: str, tmp_path: Any) -> None:
    """To the token, with a tokenizer that puts BOS before a text: the template has written it already."""
    make(style, "byte-level", tmp_path)
    said = json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))
    first = next(token for token in said["added_tokens"] if token["content"] == (style.bos or style.eos))
    said["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": first["content"], "type_id": 0}}, {"Sequence": {"id": "A"}}],
        "pair": [],
        "special_tokens": {},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(said), "utf-8")
    tokenizer = open_tokenizer(tmp_path)
    assert tokenizer.around.starts() == [first["id"]]
    messages = [{"role": role, "content": text} for role in style.roles]
    published = ChatTemplate(style.source, tokenizer).encode(messages)
    assert ChatTemplate(prompts.get(style.name or ""), tokenizer).encode(messages).ids == published.ids


def test_a_format_of_templates_leaves_nothing_to_the_tokenizer() -> None:
    assert [name for name, one in prompts.named().items() if one.templates and one.wraps] == []


def test_an_empty_input_is_none(tmp_path: Any) -> None:
    """Alpaca's data hold "input": "" where there is none; PROMPT_DICT has another form for those."""
    plain = said("alpaca", [ASKED], tmp_path)
    assert said("alpaca", [ASKED | {"input": ""}], tmp_path) == plain
    assert "### Input:\nRome" in said("alpaca", [ASKED | {"input": "Rome"}], tmp_path)
    with pytest.raises(RequestError, match="message 0: input must be text, not 5"):
        said("alpaca", [ASKED | {"input": 5}], tmp_path)


@pytest.mark.parametrize(
    "name", ["llama2-meta", "llama2", "llama2-chinese", "zephyr", "dolly", "moss", "mistral-v3"]
)
def test_an_answer_is_learned_to_its_end(name: str, tmp_path: Any) -> None:
    """Also where white space stands between the two: without the end a model would learn to go on."""
    chat = opened(name, tmp_path)
    prompt = chat.encode([ASKED, {"role": "assistant", "content": "Rain."}], generation=False)
    told = [id for id, one in zip(prompt.ids, prompt.learned(chat.stops), strict=True) if one]
    assert told[-1] in chat.stops
    assert chat.tokenizer.decode(told).strip() == "Rain."


def test_the_token_that_begins_the_next_turn_ends_none(tmp_path: Any) -> None:
    assert opened("minigpt-v2", tmp_path).stops == {opened("minigpt-v2", tmp_path).tokenizer.eos}
