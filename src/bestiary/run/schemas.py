"""JSON schemas that an answer can be held to: within bounds, and nothing in them that would not be held to.

The dialect is JSON Schema 2020-12 (https://json-schema.org/draft/2020-12), as far as llguidance can keep to
it token by token. A keyword that it would overlook or cannot keep to is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..errors import RequestError

Json = Any

# Deeper or larger schemas have overflowed the stack or exhausted the memory of other servers.
MOST_BYTES, MOST_DEPTH, MOST_NODES = 64 << 10, 16, 512
_MOST_JSON_DEPTH = 64  # of the JSON that a schema is written in, whose constants may be nested

_ONE = frozenset({"items", "additionalProperties"})
_SEVERAL = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions"})
# They say nothing about what is valid. (`format` does here; `contentEncoding` does nowhere.)
_NOTES = frozenset(
    {"title", "description", "default", "examples", "$comment", "$schema", "$id"}
    | {"deprecated", "readOnly", "writeOnly", "contentEncoding", "contentMediaType"}
)
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "maxProperties")
_LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_MOST_COUNT = 2**31 - 1


def _count(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_COUNT


def _number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e300


def _strings(value: Json) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


# Keywords whose value is data: what may stand there, and in words.
_DATA: Mapping[str, tuple[Callable[[Json], bool], str]] = {
    "type": (lambda value: isinstance(value, str) or (_strings(value) and value != []), "a type, or several"),
    "const": (lambda value: True, "any value"),
    "enum": (lambda value: isinstance(value, list) and value != [], "a list of values"),
    "required": (_strings, "a list of names"),
    "pattern": (lambda value: isinstance(value, str), "a regular expression"),
    "format": (lambda value: isinstance(value, str), "a name"),
    # Names beside those of `properties` are not told from one another, so two of them may be the same.
    "minProperties": (lambda value: _count(value) and value <= 1, "0 or 1"),
    "uniqueItems": (lambda value: value is False, "false"),
    "$ref": (lambda value: isinstance(value, str) and value[:1] == "#", "a place in this schema, #/..."),
    **dict.fromkeys(_COUNTS, (_count, f"a whole number from 0 to {_MOST_COUNT}")),
    **dict.fromkeys(_LIMITS, (_number, "a number")),
}


def checked(schema: object, where: str = "json_schema") -> Json:
    """Return a schema as plain data of its own, without what it merely tells a reader.

    Raises RequestError, which names the keyword: more than MOST_BYTES of JSON, MOST_NODES schemas and listed
    values, or MOST_DEPTH schemas within one another; a keyword that an answer would not be held to.
    """
    if not isinstance(schema, Mapping | bool):
        raise RequestError(f"{where} should be a JSON schema: an object, true or false")
    plain = _plain(schema, where)
    found = _Walk(where).schema(plain, MOST_DEPTH)
    if len(json.dumps(found, ensure_ascii=False).encode()) > MOST_BYTES:
        raise RequestError(f"{where} is larger than {MOST_BYTES} bytes; that is the most")
    return found


def patterns(schema: Json) -> Iterator[str]:
    """Yield the regular expressions of a schema that was checked."""
    if isinstance(schema, bool):
        return
    if "pattern" in schema:
        yield schema["pattern"]
    yield from schema.get("patternProperties", {})
    for key, value in schema.items():
        match value:
            case dict() if key in _NAMED:
                below = list(value.values())
            case list() if key in _SEVERAL:
                below = value
            case _ if key in _ONE:
                below = [value]
            case _:
                continue
        for one in below:
            yield from patterns(one)


class _Walk:
    """Goes through a schema once and counts what it meets."""

    def __init__(self, where: str) -> None:
        self._where, self._nodes = where, 0

    def schema(self, schema: Json, depth: int) -> Json:
        if isinstance(schema, bool):
            self._met(1)
            return schema
        if not isinstance(schema, dict):
            raise RequestError(f"{self._where}: {_shown(schema)} stands where a schema should")
        if depth == 0:
            raise RequestError(f"{self._where}: more than {MOST_DEPTH} schemas stand within one another")
        self._met(1 + len(schema.get("enum") or () if isinstance(schema.get("enum"), list) else ()))
        return {key: self._value(key, value, depth) for key, value in schema.items() if key not in _NOTES}

    def _value(self, key: str, value: Json, depth: int) -> Json:
        if key in _ONE:
            if isinstance(value, list):
                raise RequestError(f"{self._where}: {key} is one schema; for one an item say prefixItems")
            return self.schema(value, depth - 1)
        if key in _SEVERAL:
            if not isinstance(value, list) or not value:
                raise RequestError(f"{self._where}: {key} should be a list of schemas")
            return [self.schema(one, depth - 1) for one in value]
        if key in _NAMED:
            if not isinstance(value, dict):
                raise RequestError(f"{self._where}: {key} should map names to schemas")
            return {name: self.schema(one, depth - 1) for name, one in value.items()}
        if key not in _DATA:
            raise RequestError(
                f"{self._where}: the keyword {_shown(key)} is not supported here, nor ignored; leave it out"
            )
        fits, words = _DATA[key]
        if not fits(value):
            raise RequestError(f"{self._where}: {key} should be {words} here, not {_shown(value)}")
        return value

    def _met(self, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > MOST_NODES:
            raise RequestError(
                f"{self._where} has more than {MOST_NODES} schemas and listed values; that is the most"
            )


def _plain(schema: object, where: str) -> Json:
    """Return JSON as exact built-in types. Raises RequestError for what is none, or too deep to read."""
    waiting: list[tuple[object, int]] = [(schema, 0)]
    characters = 0
    while waiting:
        value, depth = waiting.pop()
        if depth > _MOST_JSON_DEPTH:
            raise RequestError(f"{where}: its JSON is nested deeper than {_MOST_JSON_DEPTH} levels")
        below: list[object] = []
        if isinstance(value, Mapping):
            below = [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple):
            below = list(value)
        characters += len(value) if isinstance(value, str) else 1
        waiting += [(one, depth + 1) for one in below]
        if characters + len(waiting) > MOST_BYTES:
            raise RequestError(f"{where} is larger than {MOST_BYTES} bytes; that is the most")
    try:
        text = json.dumps(schema, default=dict, allow_nan=False, ensure_ascii=False)
        text.encode()
        return json.loads(text)
    except (TypeError, ValueError) as error:
        raise RequestError(f"{where} is not JSON: {str(error)[:80]}") from error


def _shown(value: object) -> str:
    return repr(value)[:80]
