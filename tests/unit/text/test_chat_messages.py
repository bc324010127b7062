"""What no conversation may be is refused before a template sees it, in words that name the place."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bestiary.errors import RequestError
from bestiary.text import messages as rules
from bestiary.text.chat import ChatTemplate
from bestiary.text.tokenizer import Tokenizer

from .chat_models import NoSandbox, make
from .chat_styles import STYLES

USER = {"role": "user", "content": "x"}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return make(STYLES["chatml"], "byte-level", tmp_path_factory.mktemp("model")).tokenizer


@pytest.fixture(scope="module")
def chat(tokenizer: Tokenizer) -> Callable[[str], ChatTemplate]:
    """Make a chat template that may not run."""
    return lambda source: ChatTemplate(source, tokenizer, sandbox=NoSandbox())


def call(**changes: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"} | changes}]}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def role(name: Any) -> dict[str, Any]:
    return {"role": name, "content": "x"}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


REFUSED: dict[str, tuple[Any, str]] = {
    "none": ([], "messages: 0 given; 1 to 2048 are possible"),
    "too many": ([USER] * 2049, "messages: 2049 given"),
    "text": ("Hello", "a list of messages is needed, not a str"),
    "one message": (USER, "a list of messages is needed, not a dict"),
    "nothing": (None, "a list of messages is needed, not a NoneType"),
    "a message that is text": ([USER, "Hello"], "message 1: a dictionary with role and content is needed"),
    "no role": ([{"content": "x"}], "message 0: role must be text, not None"),
    "a role that is a number": ([USER, USER, role(7)], "message 2: role must be text, not 7"),
    "an unknown role": ([role("admin")], "message 0: role 'admin' is none of assistant, "),
    "an empty role": ([role("")], "message 0: role '' is none of"),
    "a role with a token": ([role("<|im_end|>")], "message 0: role '<|im_end|>' is none of"),
    "a role with a line": ([role("user\n")], r"message 0: role 'user\\n' is none of"),
    "a role in capitals": ([role("User")], "message 0: role 'User' is none of"),
    "no content": ([{"role": "user"}], "message 0: content is missing"),
    "null content": ([user(None)], "message 0: content must be text or a list of text parts"),
    "content of bytes": ([user(b"x")], "message 0: content must be text .*, not b'x'"),
    "content of numbers": ([USER, user(5)], "message 1: content must be text .*, not 5"),
    "content that is a dictionary": ([user({"text": "x"})], "message 0: content must be text"),
    "an image": (
        [
            {
                "role": "user",
                "content": [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {}}],
            }
        ],
        "message 0: content part 1 of type 'image_url'; this model reads text only",
    ),
    "a part without text": (
        [{"role": "user", "content": [{"type": "text"}]}],
        "content part 0 that holds no text",
    ),
    "a part that is text": ([user(["x"])], "message 0: content part 0 that holds no text"),
    "half a pair": ([USER, user("ab\ud83d")], "message 1: content: character 2 is half"),
    "half a pair in a part": (
        [{"role": "user", "content": [{"type": "text", "text": "\udc00"}]}],
        "message 0: content part 0: character 0 is half of a surrogate pair",
    ),
    "half a pair in a call": ([call(name="\udc00")], "message 0, tool_calls.*: character 0 is half"),
    "a key that nobody reads": (
        [USER | {"mood": "good"}],
        "message 0: the chat template has no place for 'mood'",
    ),
    "a key that is a number": ([USER | {1: "x"}], "message 0: the chat template has no place for 1"),
    "a key that spells a token": (
        [call(arguments={"<|im_end|>": 1})],
        "the name '<|im_end|>' is not possible",
    ),
    "a key that is no text": ([call(arguments={1: 1})], "message 0.*: the name 1 is not possible"),
    "not a number": ([call(arguments={"x": math.nan})], "message 0.*: nan is not JSON"),
    "infinity": ([call(arguments={"x": math.inf})], "message 0.*: inf is not JSON"),
    "a huge number": ([call(arguments={"x": 1 << 64})], "message 0.*: 18446744073709551616 is not JSON"),
    "an object": ([call(arguments={"x": Path("x")})], "message 0.*: PosixPath.* is not JSON"),
    "bytes": ([call(arguments={"x": b"x"})], "message 0.*: b'x' is not JSON"),
    "a deep list": ([call(arguments=nested(40))], "message 0.*: nested deeper than 32 levels"),
    "very long text": (
        [user("x" * (rules.CHARACTER_LIMIT + 1))],
        "messages: 41943.. characters in all; 4194304 are possible",
    ),
}


@pytest.mark.optimised
@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, chat: Callable[[str], ChatTemplate]) -> None:
    messages, reason = REFUSED[name]
    with pytest.raises(RequestError, match=reason) as caught:
        chat("{{ messages }}{{ tool_calls }}").encode(messages)
    assert len(str(caught.value)) < 400


def test_a_place_for_tools_is_needed(chat: Callable[[str], ChatTemplate]) -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    with pytest.raises(RequestError, match="chat template has no place for tools"):
        chat("{{ messages }}").encode([USER], tools=[tool])
    with pytest.raises(
        RequestError, match="message 0: this model's chat template has no place for tool calls"
    ):
        chat("{{ messages }}").encode([call()])
    for tools, reason in (
        ("x", "a list of tools"),
        ([1], "tool 0: a dictionary"),
        ([tool, {1: 2}], "tool 1: the name 1"),
    ):
        with pytest.raises(RequestError, match=reason):
            chat("{{ messages }}{{ tools }}").encode([USER], tools=tools)  # type: ignore[arg-type]


def test_what_a_template_mentions_is_passed_on(tokenizer: Tokenizer) -> None:
    source = "{% for m in messages %}{{ m.mood }}{{ m.role == 'narrator' }}{{ m.content }}{% endfor %}"
    made = ChatTemplate(source, tokenizer)
    assert made.encode([{"role": "narrator", "content": "!", "mood": "good"}]).text == "goodTrue!"
    with pytest.raises(RequestError, match="role 'narrators' is none of"):
        made.encode([{"role": "narrators", "content": "!"}])


def test_parts_and_usual_keys_are_taken(tokenizer: Tokenizer) -> None:
    shown = "{% for p in m.content %}[{{ p.type }}|{{ p.text }}]{% endfor %}{{ m.name }}"
    source = f"{{% for m in messages %}}{shown}{{% endfor %}}"
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    made = ChatTemplate(source, tokenizer)
    prompt = made.encode(({"role": "user", "content": tuple(parts), "name": "me", "tool_call_id": None},))
    assert prompt.text == "[text|a][text|b]me"
    assert {span.message for span in prompt.spans} == {None, 0}


def test_messages_are_not_changed(tokenizer: Tokenizer) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "<|im_end|>"}]}]
    before = repr(messages)
    ChatTemplate("{{ messages }}", tokenizer).encode(messages)
    assert repr(messages) == before
