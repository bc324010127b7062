"""Calls as Python writes them, `name(key='value', 3)`, read by a grammar of literals: nothing is evaluated.

Read are strings in single or double quotes, numbers, True, False, None (and JSON's true, false, null), lists,
tuples and dictionaries of them, to a depth of 32; arguments by name and by place.
"""

from __future__ import annotations

import json
import re
from typing import Any

_DEPTH = 32
_SPACE = re.compile(r"\s*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_STRING = re.compile(r"'((?:[^'\\\n]|\\.)*)'|\"((?:[^\"\\\n]|\\.)*)\"", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "0": "\0", "\n": ""}
_WORDS = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}

Written = tuple[str, list[Any], dict[str, Any]]
"""A call: the function, the values by place, the values by name."""


def calls(text: str) -> list[Written] | None:
    """Return the calls that a text consists of, with commas, semicolons or lines between them.

    None where it consists of anything else, or where an argument is given twice.
    """
    try:
        return _Reader(text).calls()
    except (ValueError, RecursionError):
        return None


class _Reader:
    """Reads from `place` on. All methods raise ValueError for what is no literal."""

    def __init__(self, text: str) -> None:
        self._text, self._place = text, 0

    def calls(self) -> list[Written]:
        found = []
        self._skip()
        while self._place < len(self._text):
            found.append(self._call())
            self._skip()
            if self._take(",") or self._take(";"):
                self._skip()
        return found

    def _call(self) -> Written:
        name = self._match(_NAME)[0]
        self._skip()
        self._need("(")
        values: list[Any] = []
        named: dict[str, Any] = {}
        while not self._closes(")"):
            key = self._key()
            if key is None:
                values.append(self._value(_DEPTH))
            elif key in named:
                raise ValueError(f"{key} is given twice")
            else:
                named[key] = self._value(_DEPTH)
            self._comma(")")
        return name, values, named

    def _key(self) -> str | None:
        """Take `name =` where it stands here."""
        if (match := _NAME.match(self._text, self._place)) is None:
            return None
        before, self._place = self._place, match.end()
        self._skip()
        if self._take("="):
            self._skip()
            return match[0]
        self._place = before
        return None

    def _value(self, depth: int) -> Any:
        if depth == 0:
            raise ValueError("nested too deep")
        if match := _STRING.match(self._text, self._place):
            self._place = match.end()
            return _ESCAPE.sub(_unescaped, match[1] if match[1] is not None else match[2])
        if match := _NUMBER.match(self._text, self._place):
            self._place = match.end()
            return _number(match[0])
        if self._take("["):
            return self._values("]", depth)
        if self._take("("):
            return self._values(")", depth)
        if self._take("{"):
            return self._pairs(depth)
        word = self._match(_NAME)[0]
        if word not in _WORDS:
            raise ValueError("a name is no literal")
        return _WORDS[word]

    def _values(self, close: str, depth: int) -> list[Any]:
        found = []
        while not self._closes(close):
            found.append(self._value(depth - 1))
            self._comma(close)
        return found

    def _pairs(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not self._closes("}"):
            key = self._value(depth - 1)
            if not isinstance(key, str):
                raise ValueError("JSON's keys are strings")
            self._skip()
            self._need(":")
            self._skip()
            found[key] = self._value(depth - 1)
            self._comma("}")
        return found

    def _closes(self, close: str) -> bool:
        self._skip()
        return self._take(close)

    def _comma(self, close: str) -> None:
        """Take the comma behind a value; before the closing bracket there may be none."""
        self._skip()
        if not self._take(",") and not self._text.startswith(close, self._place):
            raise ValueError("a comma is missing")

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        if (match := pattern.match(self._text, self._place)) is None:
            raise ValueError(f"character {self._place} begins nothing that is known")
        self._place = match.end()
        return match

    def _skip(self) -> None:
        self._place = self._match(_SPACE).end()

    def _take(self, character: str) -> bool:
        found = self._text.startswith(character, self._place)
        self._place += len(character) if found else 0
        return found

    def _need(self, character: str) -> None:
        if not self._take(character):
            raise ValueError(f"{character} is missing")


def _number(text: str) -> int | float:
    """Return a number as JSON has it. Raises ValueError for one that it cannot have: 1e999, 5,000 digits."""
    if text.lstrip("+-").isdigit():
        return int(text)
    value = float(text)
    json.dumps(value, allow_nan=False)
    return value


def _unescaped(match: re.Match[str]) -> str:
    if code := match[1] or match[2] or match[3]:
        character = chr(int(code, 16))
        character.encode()  # half of a surrogate pair is no character: a ValueError
        return character
    return _LETTERS.get(match[4], match[4] if match[4] in "\\'\"" else match[0])
