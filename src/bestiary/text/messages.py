"""What a conversation may be: checked before a template sees it, so that every refusal names the message."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Required, TypedDict

from ..errors import RequestError

MESSAGE_LIMIT = 2048
CHARACTER_LIMIT = 4 << 20
DEPTH_LIMIT = 32
ROLES = frozenset({"system", "user", "assistant", "tool", "developer", "function", "ipython", "observation"})
KEYS = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content"})

Json = Any
"""A JSON value: str, int, float, bool, None, or lists and dictionaries of them."""


class TextPart(TypedDict):
    """One of several texts that make up a message."""

    type: Literal["text"]
    text: str


class Message(TypedDict, total=False):
    """One turn of a conversation, with the names of OpenAI's chat API."""

    role: Required[str]
    content: Required[str | Sequence[TextPart] | None]
    name: str
    tool_calls: Sequence[Mapping[str, Json]]
    tool_call_id: str
    reasoning_content: str


class Checker:
    """Checks conversations for one template.

    Args:
        source: the template; a role or a key that is not a usual one must be mentioned in it.
        control: finds the spellings of control tokens, which no role and no key may hold.
    """

    def __init__(self, source: str, control: re.Pattern[str]) -> None:
        self._source, self._control = source, control

    def messages(self, messages: Sequence[Mapping[str, Json]]) -> list[dict[str, Json]]:
        """Return the messages as plain data of their own.

        Raises RequestError: none or more than MESSAGE_LIMIT, more than CHARACTER_LIMIT characters in all, an
        unknown role or key, content that is not text, half a surrogate pair; names the message, the key and
        the value.
        """
        if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
            raise RequestError(f"messages: a list of messages is needed, not a {type(messages).__name__}")
        if not 1 <= len(messages) <= MESSAGE_LIMIT:
            raise RequestError(f"messages: {len(messages)} given; 1 to {MESSAGE_LIMIT} are possible")
        checked = [self._message(f"message {i}", message) for i, message in enumerate(messages)]
        _check_length(checked)
        return checked

    def tools(self, tools: Sequence[Mapping[str, Json]] | None) -> list[dict[str, Json]] | None:
        """Return tool descriptions as plain data of their own; None for none.

        Raises RequestError: they are not JSON objects, or the template has no place for tools.
        """
        if not tools:
            return None
        if not self._mentions("tools"):
            raise RequestError("tools: this model's chat template has no place for tools")
        if isinstance(tools, str | Mapping) or not isinstance(tools, Sequence):
            raise RequestError(f"tools: a list of tools is needed, not a {type(tools).__name__}")
        checked = [self._object(f"tool {i}", tool) for i, tool in enumerate(tools)]
        _check_length(checked)
        return checked

    def _message(self, where: str, message: object) -> dict[str, Json]:
        if not isinstance(message, Mapping):
            raise RequestError(
                f"{where}: a dictionary with role and content is needed, not a {type(message).__name__}"
            )
        plain = {key: value for key, value in message.items() if value is not None or key == "content"}
        for key in plain:
            usual = isinstance(key, str) and key in KEYS
            if not usual and not (isinstance(key, str) and self._mentions(key)):
                raise RequestError(f"{where}: the chat template has no place for {_shown(key)}")
        if plain.get("tool_calls") and not self._mentions("tool_calls"):
            raise RequestError(f"{where}: this model's chat template has no place for tool calls")
        self._check_role(where, plain.get("role"))
        content = self._content(where, plain)
        others = {key: value for key, value in plain.items() if key not in ("role", "content")}
        return {"role": plain["role"], "content": content} | self._object(where, others)

    def _check_role(self, where: str, role: object) -> None:
        if not isinstance(role, str):
            raise RequestError(f"{where}: role must be text, not {_shown(role)}")
        if role in ROLES:
            return
        # In many templates the role's name is part of a control token: '<|' + role + '|>'.
        quoted = f"'{role}'" in self._source or f'"{role}"' in self._source
        if not quoted or not role.isidentifier() or self._control.search(role):
            raise RequestError(f"{where}: role {_shown(role)} is none of {', '.join(sorted(ROLES))}")

    def _content(self, where: str, message: Mapping[str, Json]) -> Json:
        if "content" not in message:
            raise RequestError(f"{where}: content is missing")
        content = message["content"]
        if isinstance(content, str):
            return _text(f"{where}: content", content)
        if content is None and message.get("tool_calls"):
            return None
        if not isinstance(content, Sequence) or isinstance(content, bytes):
            raise RequestError(
                f"{where}: content must be text or a list of text parts, not {_shown(content)}"
            )
        parts = []
        for i, part in enumerate(content):
            kind = part.get("type") if isinstance(part, Mapping) else None
            if not isinstance(part, Mapping) or kind != "text" or not isinstance(part.get("text"), str):
                named = f"of type {_shown(kind)}" if kind not in (None, "text") else "that holds no text"
                raise RequestError(f"{where}: content part {i} {named}; this model reads text only")
            parts.append({"type": "text", "text": _text(f"{where}: content part {i}", part["text"])})
        return parts

    def _object(self, where: str, value: object) -> dict[str, Json]:
        plain = self._plain(where, value, DEPTH_LIMIT)
        if not isinstance(plain, dict):
            raise RequestError(f"{where}: a dictionary is needed, not {_shown(value)}")
        return plain

    def _plain(self, where: str, value: object, depth: int) -> Json:
        """Copy a JSON value into exact built-in types."""
        if depth == 0:
            raise RequestError(f"{where}: nested deeper than {DEPTH_LIMIT} levels")
        if isinstance(value, str):
            return _text(where, value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int) and abs(value) < 1 << 63:
            return int(value)
        if isinstance(value, float) and math.isfinite(value):
            return float(value)
        if isinstance(value, Mapping):
            return {self._key(where, k): self._plain(f"{where}, {k}", v, depth - 1) for k, v in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, bytes):
            return [self._plain(where, item, depth - 1) for item in value]
        raise RequestError(f"{where}: {_shown(value)} is not JSON")

    def _key(self, where: str, key: object) -> str:
        # Keys are not traced through the template as values are, so nothing in them may look like a token.
        if not isinstance(key, str) or self._control.search(key):
            raise RequestError(f"{where}: the name {_shown(key)} is not possible")
        return _text(where, key)

    def _mentions(self, name: str) -> bool:
        return name.isidentifier() and re.search(rf"\b{name}\b", self._source) is not None


def _text(where: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            f"{where}: character {error.start} is half of a surrogate pair, not a character"
        ) from error
    return str(text)


def _shown(value: object) -> str:
    return repr(value)[:80]


def _check_length(values: Iterable[Json]) -> None:
    length = 0

    def count(text: str) -> str:
        nonlocal length
        length += len(text)
        return text

    for value in values:
        replaced(value, count)
    if length > CHARACTER_LIMIT:
        raise RequestError(f"messages: {length} characters in all; {CHARACTER_LIMIT} are possible")


# Templates compare these; as none can be part of a token, they need no tracing.
_TYPES = frozenset({"text", "function", "object", "array", "string", "number", "integer", "boolean", "null"})


def replaced(value: Json, function: Callable[[str], str]) -> Json:
    """Return a copy with every text replaced, except for keys and the names of JSON types."""
    if isinstance(value, str):
        return function(value)
    if isinstance(value, list):
        return [replaced(item, function) for item in value]
    if isinstance(value, dict):
        return {key: item if _is_type(key, item) else replaced(item, function) for key, item in value.items()}
    return value


def _is_type(key: str, value: Json) -> bool:
    names = value if isinstance(value, list) else [value]
    return key == "type" and all(isinstance(name, str) and name in _TYPES for name in names)
