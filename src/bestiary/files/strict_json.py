"""JSON as RFC 8259 means it, with bounds: what `json.loads` lets through is refused before it costs much."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np

DEPTH = 64
MOST_PARTS = 8_000_000  # a tokenizer.json of 262,000 pieces and 514,000 merges has 3 million
_LARGEST = 2**63

# A string, or the rest of the text when its end is missing: each byte is looked at once, whatever the input.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_UP, _DOWN, _BETWEEN = b"[{", b"]}", b",:"
_OTHERS = bytes(byte for byte in range(256) if byte not in _UP + _DOWN + _BETWEEN)
_STEPS = bytes.maketrans(_UP + _DOWN + _BETWEEN, b"\x01\x01\xff\xff\x00\x00")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class InvalidJSONError(ValueError):
    """Why a text is no JSON that we read, and the character where that was seen, if it is one place."""

    def __init__(self, reason: str, offset: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.offset = reason, offset


def parse(data: bytes, *, lenient: bool = False, parts: int = MOST_PARTS) -> Any:
    """Return the value that UTF-8 JSON text holds.

    lenient: read what published config files do: of a key written twice the last counts (Aquila2-34B-16K has
    one), and an integer past 64 bits becomes a float (`model_max_length` is often int(1e30)). Otherwise both
    are refused. parts: how many brackets, commas and colons there may be. Raises InvalidJSONError: not UTF-8,
    not JSON, NaN or Infinity, a number past float64, half a surrogate pair, or nested deeper than 64 levels.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidJSONError(f"not UTF-8 text: {error.reason}", error.start) from None
    # Before the parser builds anything: each level is a recursion, each part an object.
    steps = _STRING.sub(b"", data).translate(_STEPS, _OTHERS)
    if len(steps) > parts:
        raise InvalidJSONError(f"more than {parts:,} brackets, commas and colons")
    if np.frombuffer(steps, np.int8).cumsum(dtype=np.int32).max(initial=0) > DEPTH:
        raise InvalidJSONError(f"nested deeper than {DEPTH} levels")
    decoder = json.JSONDecoder(
        object_pairs_hook=None if lenient else _unique,
        parse_int=_integer_or_float if lenient else _integer,
        parse_float=_float,
        parse_constant=_constant,
    )
    try:
        value = decoder.decode(text)
    except json.JSONDecodeError as error:
        raise InvalidJSONError(f"not JSON: {error.msg}", error.pos) from None
    if _SURROGATE.search(text) and _half_surrogate(value):
        raise InvalidJSONError("half of a surrogate pair in a string")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InvalidJSONError(f"the key {key[:200]!r} is there twice")
        found[key] = value
    return found


def _integer(text: str) -> int:
    # Twenty characters hold every 64-bit integer; int() of a million digits would take for ever.
    if len(text) <= 20 and abs(value := int(text)) <= _LARGEST:
        return value
    raise InvalidJSONError(f"the integer that begins {text[:24]} is past 64 bits")


def _integer_or_float(text: str) -> int | float:
    return value if len(text) <= 20 and abs(value := int(text)) <= _LARGEST else _float(text)


def _float(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise InvalidJSONError(f"the number {text[:24]} is past float64")
    return value


def _constant(text: str) -> float:
    raise InvalidJSONError(f"{text} is no JSON")


def _half_surrogate(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False
