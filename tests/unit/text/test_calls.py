"""Calls in what models write: found as their authors find them, never executed, and no text is lost."""

from __future__ import annotations

import ast
import json
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestiary.text.calls import FORCED, Call, Reading, literals, of
from bestiary.text.calls.marks import Body
from bestiary.text.calls.styles import STYLES, Style

FUNCTIONS = {"weather": ["city", "days"], "Search": ["query"], "Calculate": ["expression"]}
TOOLS = [
    {"function": {"name": name, "parameters": {"properties": {key: {} for key in places}}}}
    for name, places in FUNCTIONS.items()
]
BY_NAME = {style.name: style for style in (*STYLES, FORCED)}
PARIS = '{"city": "Paris"}'

# form, what the model writes, the text of it, its calls
WRITTEN: list[tuple[str, str, str, list[tuple[str, str]]]] = [
    ("hermes", "Sure.\n<tool_call>\n" + f'{{"name": "weather", "arguments": {PARIS}}}' + "\n</tool_call>",
     "Sure.", [("weather", PARIS)]),
    ("hermes", f'<tool_call>{{"name": "weather", "arguments": {PARIS}}}</tool_call>\n' * 2, "",
     [("weather", PARIS)] * 2),
    ("hermes", f'<tool_call>{{"name": "weather", "arguments": {PARIS}}}</tool_call> then', "then",
     [("weather", PARIS)]),
    ("hermes", f'<tool_call>{{"name": "weather", "arguments": {PARIS}}}', "", [("weather", PARIS)]),
    ("internlm2", f'好的。<|action_start|><|plugin|>\n{{"name": "weather", "parameters": {PARIS}}}', "好的。",
     [("weather", PARIS)]),
    ("mistral", f'[TOOL_CALLS][{{"name": "weather", "arguments": {PARIS}}}]', "", [("weather", PARIS)]),
    ("mistral", '[TOOL_CALLS][{"name": "Search", "arguments": {}}, {"name": "Calculate", "arguments": {}}]',
     "", [("Search", "{}"), ("Calculate", "{}")]),
    ("chatglm3", "weather\n ```python\ntool_call(city='Paris')\n```", "", [("weather", PARIS)]),
    ("chatglm3", "\n 我来查。<|assistant|>weather\n```python\ntool_call(city='Paris', days=2)\n```",
     "我来查。", [("weather", '{"city": "Paris", "days": 2}')]),
    ("chatglm3", "\n just a text\nof two lines", "just a text\nof two lines", []),
    ("chatglm3", "no such function\nand more", "no such function\nand more", []),
    ("qwen", f"Thought: I ask.\nAction: weather\nAction Input: {PARIS}\n", "I ask.", [("weather", PARIS)]),
    ("qwen", "Thought: I now know the final answer.\nFinal Answer: Rain.", "Rain.", []),
    ("qwen", "Rain, I think.", "Rain, I think.", []),
    ("moss", '<|Inner Thoughts|>: I look.<eot>\n<|Commands|>: Search("x y"), Calculate("1+1")', "I look.",
     [("Search", '{"query": "x y"}'), ("Calculate", '{"expression": "1+1"}')]),
    ("moss", "<|Inner Thoughts|>: Easy.<eot>\n<|Commands|>: None<eoc>", "Easy.\n", []),
    ("bluelm", f'{{"answer":"一","function_calls":[{{"name":"weather","parameters":{PARIS}}}]}}', "一",
     [("weather", PARIS)]),
    ("bluelm", '{"answer":"一","function_calls":[]}', "一", []),
    ("llama3", f'<|python_tag|>{{"name": "weather", "parameters": {PARIS}}}', "", [("weather", PARIS)]),
    ("llama3", "It rains.", "It rains.", []),
    ("json", f'{{"name": "weather", "arguments": {PARIS}}}', "", [("weather", PARIS)]),
]  # fmt: skip

# What is no whole, well-formed call of a function that was told of is text, as it stands.
MALFORMED = [
    ("hermes", '<tool_call>{"name": "weather", "arguments": [1]}</tool_call>'),
    ("hermes", '<tool_call>{"name": "delete_all", "arguments": {}}</tool_call>'),
    ("hermes", '<tool_call>{"name": "weather", "arguments": {"a": NaN}}</tool_call>'),
    ("hermes", '<tool_call>{"name": "weather", "argum</tool_call>'),
    ("hermes", "<tool_call>" + "[" * 100_000),
    ("hermes", "a <tool_cal of text <"),
    ("mistral", "[TOOL_CALLS] what?"),
    ("internlm2", '<|action_start|><|plugin|>{"name": 3}<|action_end|>'),
    ("chatglm3", "weather\n```python\nimport os\n```"),
    ("chatglm3", "weather\n```python\ntool_call(city=__import__('os'))\n```"),
    ("chatglm3", "weath"),
    ("qwen", "\nAction: weather\nAction Input: Paris"),
    ("qwen", "Thought: and then nothing"),
    ("moss", '<|Commands|>: Search("a", "b")<eoc>'),
    ("moss", '<|Commands|>: Search("a"<eoc>'),
    ("bluelm", '{"answer": 1}'),
    ("llama3", '{"city": "Paris"}'),
    ("llama3", '<|python_tag|>print("x")'),
]


def read(style: Style, pieces: list[str], prompt: str = "") -> tuple[str, list[tuple[str, str]]]:
    """Return the text and the calls of an answer that comes in pieces."""
    reading = Reading(style, TOOLS, prompt=prompt)
    events = [event for piece in pieces for event in reading.push(piece)] + reading.flush()
    text = "".join(event for event in events if isinstance(event, str))
    return text, [(event.name, event.arguments) for event in events if isinstance(event, Call)]


@pytest.mark.parametrize(("name", "answer", "text", "calls"), WRITTEN)
def test_calls_are_found(name: str, answer: str, text: str, calls: list[tuple[str, str]]) -> None:
    assert read(BY_NAME[name], [answer]) == (text, calls)
    assert read(BY_NAME[name], list(answer)) == (text, calls)


@pytest.mark.parametrize(("name", "answer"), MALFORMED)
def test_what_is_no_call_is_text(name: str, answer: str) -> None:
    assert read(BY_NAME[name], [answer]) == (answer, [])


_SNIPPETS = sorted(
    {part for _, answer, *_ in WRITTEN for part in (answer, *answer.split('"'))}
    | {answer[:40] for _, answer in MALFORMED}
    | {" ", "\n", "<", "[", "{", "Thought:", "\nAction:", "\nFinal Answer:", "<|assistant|>", "</tool_call>"}
)


@given(st.sampled_from(sorted(BY_NAME)), st.lists(st.sampled_from(_SNIPPETS), max_size=6), st.randoms())
def test_where_a_text_is_cut_makes_no_difference(name: str, parts: list[str], chance: random.Random) -> None:
    answer = "".join(parts)
    cuts = sorted(chance.choices(range(len(answer) + 1), k=chance.randrange(12)))
    pieces = [answer[a:b] for a, b in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    assert read(BY_NAME[name], pieces) == read(BY_NAME[name], [answer])


def test_a_thought_that_the_prompt_began_goes_on() -> None:
    answer = " I know it now.\nFinal Answer: 22 degrees."
    assert read(BY_NAME["qwen"], list(answer), "...\nObservation: 22\nThought:") == ("22 degrees.", [])


def test_text_is_held_only_while_it_may_be_a_call() -> None:
    reading = Reading(BY_NAME["hermes"], TOOLS)
    assert reading.push("It is 3 <") == ["It is 3"]
    assert reading.push("5, and <tool") == [" <5, and"]
    assert reading.push("s> too") == [" <tools> too"]
    assert reading.flush() == []


def test_a_call_without_end_becomes_text_at_a_bound() -> None:
    reading = Reading(BY_NAME["hermes"], TOOLS)
    reading.push("<tool_call>")
    said = [event for _ in range(Body.LIMIT // 1000 + 2) for event in reading.push("a" * 1000)]
    assert sum(map(len, said)) > Body.LIMIT  # type: ignore[arg-type]


# The authors' own code.


def _of_chatglm3(goldens: Path) -> Iterator[Any]:
    for row in json.loads((goldens / "prompts/chatglm3.json").read_text()):
        if row["case"] == "process_response" and row["options"]["with_tools"]:
            yield row


def test_chatglm3_is_read_as_its_authors_read_it(goldens: Path) -> None:
    for row in _of_chatglm3(goldens):
        told = [tool for message in row.get("messages") or () for tool in message.get("tools", ())]
        reading = Reading(BY_NAME["chatglm3"], told)
        events = [*reading.push(row["model_output"]), *reading.flush()]
        if isinstance(row["parsed"], dict):
            (call,) = events
            assert isinstance(call, Call)
            assert {"name": call.name, "parameters": json.loads(call.arguments)} == row["parsed"]
        else:  # the authors also write a year where a text has a blank for one
            assert ["".join(map(str, events)).replace("[[训练时间]]", "2023年")] == [row["parsed"]]


def test_qwen_is_read_as_its_authors_read_it(goldens: Path) -> None:
    rows = json.loads((goldens / "prompts/qwen1-7b-14b-72b.json").read_text())
    found = [row for row in rows if row["case"] == "parse_response"]
    assert found
    for row in found:
        said = row["parsed"]["message"]
        called = said.get("function_call")
        told = [{"name": called["name"]}] if called else []
        reading = Reading(BY_NAME["qwen"], told)
        events = [*reading.push(row["model_output"]), *reading.flush()]
        expected = [said["content"], *([Call(called["name"], called["arguments"])] if called else [])]
        assert events == expected


# Literals, beside Python's own.

_LITERALS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc '\"\\\n"), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), _LITERALS, max_size=4))
def test_literals_are_what_python_reads(values: dict[str, Any]) -> None:
    written = f"tool_call({', '.join(f'{name}={value!r}' for name, value in values.items())})"
    assert literals.calls(written) == [("tool_call", [], values)]


@given(st.text("abc(){}[]'\"\\=,: 019.-eTrueNonx\n", max_size=40))
def test_what_is_read_is_what_python_reads(text: str) -> None:
    found = literals.calls(f"f({text})")
    if found and len(found) == 1:
        said = text.replace("true", "True").replace("null", "None")
        call = ast.parse(f"f({said})".strip(), mode="eval").body
        assert isinstance(call, ast.Call)
        places = [ast.literal_eval(one) for one in call.args]
        assert json.dumps([found[0][1]]) == json.dumps([places])


# Hostile answers: nothing is run for them.

_RUNS = ("compile", "exec", "import", "open", "os.", "subprocess.", "socket.", "ctypes.", "pickle.")


class Watch:
    """Collects the interpreter's audit events of what runs, opens or connects, while it is asked to."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.on = False
        sys.addaudithook(self._hear)  # for good: an interpreter has no way to take one away

    def _hear(self, event: str, _: tuple[object, ...]) -> None:
        if self.on and event.startswith(_RUNS):
            self.events.append(event)

    @contextmanager
    def hearing(self) -> Iterator[list[str]]:
        self.events.clear()
        self.on = True
        try:
            yield self.events
        finally:
            self.on = False


_CODE = [
    "__import__('os').system('touch /tmp/owned')", "open('/etc/passwd').read()", "exec('1')", "eval('1+1')",
    "(lambda: 1)()", "[x for x in ().__class__.__bases__]", "f'{1+1}'", "1+1", "9**9**9", "city", "*a", "**b",
    "'a' 'b'", "b'bytes'", "'\\ud800'", "1e999", "'" * 3 + "a" + "'" * 3, "{1: 2}", "{'a'}", "-" * 999 + "1",
    "(" * 5000, "'" + "\\" * 4001, "9" * 5000, "\x00", "…", "city:=1",
]  # fmt: skip
_SHELLS = {
    "chatglm3": "weather\n```python\ntool_call(city={})\n```",
    "moss": "<|Commands|>: Search({})<eoc>",
    "hermes": '<tool_call>{{"name": "weather", "arguments": {{"city": {}}}}}</tool_call>',
    "qwen": "Thought: x\nAction: weather\nAction Input: {}",
    "internlm2": '<|action_start|><|plugin|>{{"name": "weather", "parameters": {}}}<|action_end|>',
    "mistral": "[TOOL_CALLS]{}",
    "bluelm": '{{"answer": {}}}',
    "llama3": '{{"name": "weather", "parameters": {}}}',
}


def test_nothing_is_run_for_hostile_answers() -> None:
    answers = [(name, shell.format(code)) for name, shell in _SHELLS.items() for code in _CODE]
    assert len(answers) >= 200
    for name, answer in answers:  # what is imported on first use is imported here
        read(BY_NAME[name], [answer])
    watch = Watch()
    with watch.hearing() as events:
        for name, answer in answers:
            read(BY_NAME[name], [answer])
    assert events == []
    with watch.hearing() as events:  # that the watch sees what it is there for
        compile("1", "", "eval")
    assert events == ["compile"]


def test_templates_tell_of_their_form() -> None:
    assert of("{% if tools %}<tool_call>{% endif %}") is BY_NAME["hermes"]
    assert of("{{ messages }}") is None
