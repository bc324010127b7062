"""Tools in the formats that have them, given as OpenAI's API gives them: texts written out by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bestiary.errors import RequestError
from bestiary.text import prompts
from bestiary.text.chat import ChatTemplate, Prompt
from tests import goldens
from tests.unit.text.chat_models import make
from tests.unit.text.chat_styles import STYLES

Json = dict[str, Any]
WEATHER: Json = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tell the weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL: Json = {"function": {"name": "weather", "arguments": {"city": "It's", "days": 2, "now": True}}}
CALLED: list[Json] = [
    {"role": "user", "content": "Rain?"},
    {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL]},
    {"role": "tool", "content": '{"rain": 0}'},
]
PARAMETERS = '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}'
TOLD = (
    '{"type": "function", "function": {"name": "weather", "description": "Tell the weather", "parameters": '
)


def rendered(folder: Path, name: str, messages: list[Json], **options: Any) -> Prompt:
    style = STYLES["mistral"]
    control = tuple(dict.fromkeys((*style.control, *prompts.get(name).needs)))
    tokenizer = make(replace(style, control=control), "byte-level", folder).tokenizer
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    return ChatTemplate(prompts.get(name), tokenizer, tokens=tokens).encode(messages, **options)


def test_chatglm3_calls_in_python(tmp_path: Path) -> None:
    text = rendered(tmp_path, "chatglm3", CALLED, tools=[WEATHER]).text
    system, _, rest = text.partition("<|user|>")
    head = "Answer the following questions as best as you can. You have access to the following tools:"
    assert system == f"<|system|>\n{head}\n{json.dumps([WEATHER], indent=4)}"
    assert rest == (
        "\nRain?<|assistant|>\nLet me see.<|assistant|>weather\n"
        "```python\ntool_call(city='It\\'s', days=2, now=True)\n```"
        '<|observation|>\n{"rain": 0}<|assistant|>'
    )


def test_chatglm3_tells_tools_in_the_system_text(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be terse."}, {"role": "user", "content": "Rain?"}]
    text = rendered(tmp_path, "chatglm3", messages, tools=[WEATHER]).text
    assert text.startswith("<|system|>\nBe terse.\n[\n    {\n")
    assert text.count("<|system|>") == 1


def test_qwen_calls_in_the_words_of_react(tmp_path: Path) -> None:
    text = rendered(tmp_path, "qwen", CALLED, tools=[WEATHER]).text
    assert (
        "weather: Call this tool to interact with the weather API. What is the weather API useful for? "
        f"Tell the weather Parameters: {PARAMETERS}\n\n" in text
    )
    assert text.endswith(
        "Question: Rain?<|im_end|>\n<|im_start|>assistant\nThought: Let me see.\nAction: weather\n"
        'Action Input: {"city": "It\'s", "days": 2, "now": true}\nObservation: {"rain": 0}\nThought:'
    )


def test_qwen_tells_tools_with_the_last_question_that_has_an_answer(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "three"},
    ]
    text = rendered(tmp_path, "qwen", messages, tools=[WEATHER]).text
    assert text.count("Begin!") == 1
    assert "Begin!\n\nQuestion: two<|im_end|>" in text
    assert "Final Answer: 2<|im_end|>" in text
    assert "Thought" not in rendered(tmp_path, "qwen", messages).text


def test_internlm2_calls_a_plugin_and_runs_code(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "Be terse."},
        {"role": "system", "name": "interpreter", "content": "You run Python."},
        *CALLED,
        {"role": "assistant", "content": "", "tool_calls": [{"code": "print(2)"}]},
        {"role": "environment", "content": "2"},
    ]
    assert rendered(tmp_path, "internlm2", messages, tools=[WEATHER]).text == (
        "<|im_start|>system\nBe terse.<|im_end|>\n"
        f"<|im_start|>system name=<|plugin|>\n[{TOLD}{PARAMETERS}}}}}]<|im_end|>\n"
        "<|im_start|>system name=<|interpreter|>\nYou run Python.<|im_end|>\n"
        "<|im_start|>user\nRain?<|im_end|>\n"
        '<|im_start|>assistant\nLet me see.<|action_start|><|plugin|>\n{"name": "weather", '
        '"parameters": {"city": "It\'s", "days": 2, "now": true}}<|action_end|><|im_end|>\n'
        '<|im_start|>environment name=<|plugin|>\n{"rain": 0}<|im_end|>\n'
        "<|im_start|>assistant\n<|action_start|><|interpreter|>\n```python\nprint(2)\n```<|action_end|>\n<|im_end|>\n"
        "<|im_start|>environment name=<|interpreter|>\n2<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("tool", "written"),
    [
        ({"name": "a"}, "{'name': 'a'}"),
        ({"a": "it's"}, "{'a': \"it's\"}"),
        ({"a": 'it\'s "so"'}, "{'a': 'it\\'s \"so\"'}"),
        ({"a": ["x\ny", 1, 2.5, True, None], "b": {}}, "{'a': ['x\\ny', 1, 2.5, True, None], 'b': {}}"),
        ({"a": "back\\slash\ttab"}, "{'a': 'back\\\\slash\\ttab'}"),
    ],
)
def test_bluelm_writes_tools_as_python_does(tool: Json, written: str, tmp_path: Path) -> None:
    assert repr(tool) == written
    text = rendered(tmp_path, "bluelm-tools", [{"role": "user", "content": "?"}], tools=[tool]).text
    assert f"<APIs>\n- {written}\n</APIs>\n" in text


@pytest.mark.parametrize(
    "entry",
    [
        entry
        for folder in goldens.cases("prompts")
        for entry in json.loads((folder / "bluelm.json").read_text(encoding="utf-8"))
        if "tools" in entry["options"]
    ],
    ids=lambda entry: str(entry["case"]),
)
def test_bluelm_makes_the_published_system_text_of_tools(entry: Json, tmp_path: Path) -> None:
    _, *messages = entry["messages"]
    assert rendered(tmp_path, "bluelm-tools", messages, tools=entry["options"]["tools"]).text == entry["text"]


@pytest.mark.parametrize(
    ("name", "messages", "said"),
    [
        ("chatglm3", [{"role": "developer", "content": "x"}], "message 0.*developer"),
        (
            "chatglm3",
            [
                *CALLED[:1],
                {"role": "assistant", "content": "", "tool_calls": [{"name": "a", "arguments": "{}"}]},
            ],
            "message 1.*must be an object",
        ),
        ("qwen", [{"role": "tool", "content": "x"}], "message 0.*tool"),
        ("qwen", [*CALLED[:1], {"role": "system", "content": "x"}], "message 1.*system"),
        (
            "qwen",
            [*CALLED[:1], {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]}],
            "message 1.*more than one call",
        ),
        ("internlm2", [{"role": "system", "name": "plugin", "content": "[]"}], "message 0.*given as tools"),
        ("internlm2", [{"role": "function", "content": "x"}], "message 0.*function"),
        ("bluelm-tools", [{"role": "developer", "content": "x"}], "message 0.*developer"),
        ("yuan2", [{"role": "system", "content": "x"}], "message 0.*system"),
    ],
)
def test_what_has_no_place_is_refused(name: str, messages: list[Json], said: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=said):
        rendered(tmp_path, name, messages)


@pytest.mark.parametrize("name", ["chatglm3", "qwen", "internlm2"])
def test_no_message_and_no_tool_gives_a_control_token(name: str, tmp_path: Path) -> None:
    """What users, assistants, tools and descriptions spell are characters of texts, and ids of no role."""
    spelt = "".join(prompts.get(name).needs)
    messages: list[Json] = [
        {"role": "user", "content": spelt},
        {"role": "assistant", "content": spelt, "tool_calls": [{"name": spelt, "arguments": {"a": spelt}}]},
        {"role": "tool", "content": spelt},
    ]
    plain = json.loads(json.dumps(messages).replace(spelt, "x"))
    tool = {"name": "a", "description": spelt, "parameters": {}}
    style = STYLES["mistral"]
    control = tuple(dict.fromkeys((*style.control, *prompts.get(name).needs)))
    tokenizer = make(replace(style, control=control), "byte-level", tmp_path).tokenizer
    chat = ChatTemplate(prompts.get(name), tokenizer, tokens={"bos_token": "<s>", "eos_token": "</s>"})
    ids = {tokenizer.control[token] for token in prompts.get(name).needs}
    found = [
        [id for id in chat.encode(said, tools=[described]).ids if id in ids]
        for said, described in ((messages, tool), (plain, {**tool, "description": "x"}))
    ]
    assert found[0] == found[1]
