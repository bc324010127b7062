"""What stands in a call's place, as calls: JSON of several shapes, and calls as Python writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import literals


@dataclass(frozen=True)
class Call:
    """A call of a function. arguments: a JSON object as text."""

    name: str
    arguments: str


Event = str | Call
"""What an answer says next: text, or a call."""

Told = Mapping[str, tuple[str, ...]]
"""The functions that a model was told of -> the names of their parameters, in order."""


def named(body: str, told: Told) -> list[Event] | None:
    """Read {"name": ..., "arguments": {...}}, or a list of such; Llama and InternLM2 say "parameters"."""
    value = _json(body)
    found = [_named(one, told) for one in (value if isinstance(value, list) else [value])]
    calls = [one for one in found if one is not None]
    return list(calls) if calls and len(calls) == len(found) else None


def answered(body: str, told: Told) -> list[Event] | None:
    """Read BlueLM's {"answer": "...", "function_calls": [{"name": ..., "parameters": {...}}]}."""
    value = _json(body)
    if not isinstance(value, dict) or not value.keys() <= {"answer", "function_calls"}:
        return None
    text, listed = value.get("answer") or "", value.get("function_calls") or []
    if not isinstance(text, str) or not isinstance(listed, list):
        return None
    found = [_named(one, told) for one in listed]
    calls = [one for one in found if one is not None]
    return [text, *calls] if len(calls) == len(found) else None


def reacted(body: str, told: Told) -> list[Event] | None:
    """Read ReAct's action: a name, then `Action Input:` on a line of its own with a JSON object."""
    name, mark, arguments = body.partition("\nAction Input:")
    found = _call(name.strip(), _json(arguments), told) if mark else None
    return None if found is None else [found]


_FENCE = re.compile(r"\s*```python[ \t]*\n(.*?)\n?```\s*", re.DOTALL)


def fenced(name: str, body: str, told: Told) -> list[Event] | None:
    """Read ChatGLM3's fenced `tool_call(key='value')`, whose function is named in front of it."""
    match = _FENCE.fullmatch(body)
    written = literals.calls(match[1]) if match else None
    if not written or len(written) > 1 or written[0][0] != "tool_call" or written[0][1]:
        return None
    found = _call(name, written[0][2], told)
    return None if found is None else [found]


def commanded(body: str, told: Told) -> list[Event] | None:
    """Read MOSS's `Search("..."), Calculate("...")`; None is how it says that there is no call."""
    if body.strip() == "None":
        return []
    found: list[Event] = []
    for name, values, said in literals.calls(body) or ():
        places = told.get(name, ())
        if len(values) > len(places) or said.keys() & set(places[: len(values)]):
            return None
        call = _call(name, dict(zip(places, values, strict=False)) | said, told)
        if call is None:
            return None
        found.append(call)
    return found or None


def _named(value: Any, told: Told) -> Call | None:
    if not isinstance(value, dict):
        return None
    arguments = value["arguments"] if "arguments" in value else value.get("parameters", {})
    if isinstance(arguments, str):  # some models write the object as text
        arguments = _json(arguments)
    return _call(value.get("name"), arguments, told)


def _call(name: Any, arguments: Any, told: Told) -> Call | None:
    if not isinstance(name, str) or name not in told or not isinstance(arguments, dict):
        return None
    try:
        text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (ValueError, RecursionError):  # Infinity; half of a surrogate pair
        return None
    return Call(name, text)


def _json(text: str) -> Any:
    """Return what a text says as JSON; None where it is none."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
