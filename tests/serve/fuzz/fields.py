"""Every field of every request, found in the server's OpenAPI file, and the values that break servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_MESSAGES = [{"role": "user", "content": "a"}]
# Where a request is sent, its class, and the least that it needs.
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "/v1/chat/completions": (
        "ChatRequest",
        {"messages": [{"role": "user", "content": "a"}], "max_tokens": 2},
    ),
    "/v1/completions": ("CompletionRequest", {"prompt": "a", "max_tokens": 2}),
    "/v1/embeddings": ("EmbeddingRequest", {"input": "a"}),
    "/v1/responses": ("ResponseRequest", {"input": "a", "max_output_tokens": 2}),
    "/v1/render": ("RenderRequest", {"messages": _MESSAGES}),
    "/tokenize": ("TokenizeRequest", {"prompt": "a"}),
    "/detokenize": ("DetokenizeRequest", {"tokens": [65]}),
    "/v1/load_lora_adapter": ("LoadAdapterRequest", {"lora_name": "a", "lora_path": "none"}),
    "/v1/unload_lora_adapter": ("UnloadAdapterRequest", {"lora_name": "a"}),
}
# As JSON spells them, since some are no values of Python's json.
_ODD = [
    *"0 -1 1 2147483647 2147483648 4294967296 9223372036854775807 9223372036854775808".split(),
    *"18446744073709551616 -9223372036854775809 0.5 1.0 1e2 1e308 -1e308 1e400 1e-320 -0.0 -0".split(),
    *'NaN Infinity -Infinity "1" "" "\\ud83d" true false null [] [1] {}'.split(),
    "9" * 5000,
]
_TOKENS = [
    "[-1]",
    "[0]",
    "[258]",
    "[259]",
    "[271]",
    "[272]",
    "[273]",
    "[2147483647]",
    "[2147483648]",
    "[1.5]",
]
_MEBI = 1 << 20
_TEXTS = [
    "\0", "\0" * 100, "\u202e\u2066\u2069\u200f", "\ufeff", "\ufffe\uffff", "\U0010ffff", "a" * _MEBI,
    "\U0001f99c" * 4096, "{{7*7}}", "<|im_end|>", "\r\n\r\n", "\x1b[2J", "%s%n", "../../../etc/passwd",
    "((((a+)+)+)+)+$", "(" * 5000, "[" * 5000, "a{0,1000000}", "(?=a)b", "\\1", "root ::= root",
    "e\u0301" * 500, "'; DROP TABLE models; --",
]  # fmt: skip
_SURROGATES = [
    '"\\ud83d"',
    '"\\udc00\\ud83d"',
    '"a\\udfff"',
    '"\\ud83d\\ude00"',
    '["\\ud800"]',
    '{"\\ud800":1}',
]


@dataclass(frozen=True)
class Case:
    """A body with one odd value, as it is spelt in JSON."""

    path: str
    field: str
    value: str
    body: str


def cases(document: dict[str, Any], path: str) -> Iterator[Case]:
    """Every field of a path's request with every value."""
    name, base = REQUESTS[path]
    schemas = document["components"]["schemas"]
    for field, schema in schemas[name]["properties"].items():
        for value in values(schema, schemas):
            rest = {key: given for key, given in base.items() if key != field}
            spelt = ", ".join(f"{json.dumps(key)}: {json.dumps(given)}" for key, given in rest.items())
            yield Case(path, field, value, f"{{{json.dumps(field)}: {value}{', ' if spelt else ''}{spelt}}}")


def values(schema: dict[str, Any], schemas: dict[str, Any]) -> list[str]:
    """Values for a field, as JSON: those that are odd for all fields, and those at its own bounds."""
    found, kinds = list(_ODD), _kinds(schema, schemas)
    if any(kind.get("type") == "string" and "enum" not in kind for kind in kinds):
        found += [*map(json.dumps, _TEXTS), *_SURROGATES]
    if any(kind.get("type") == "array" for kind in kinds):
        found += _TOKENS
    for kind in kinds:
        low = kind.get("minimum", kind.get("exclusiveMinimum"))
        high = kind.get("maximum", kind.get("exclusiveMaximum"))
        found += [
            json.dumps(bound + step) for bound in (low, high) if bound is not None for step in (-1, 0, 1)
        ]
        found += [json.dumps("a" * size) for size in _sizes(kind, "maxLength")]
        items = kind.get("items", {})
        for size in _sizes(kind, "maxItems"):
            found.append(f"[{', '.join([_item(items, schemas)] * size)}]")
    return list(dict.fromkeys(found))


def _sizes(kind: dict[str, Any], name: str) -> list[int]:
    """A bound and one more, where that is not more than a body may be anyway."""
    cap = kind.get(name)
    return [cap, cap + 1] if cap is not None and cap < _MEBI else []


def _kinds(schema: dict[str, Any], schemas: dict[str, Any]) -> list[dict[str, Any]]:
    """The members of a field's union, with what they refer to."""
    if "$ref" in schema:
        return _kinds(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    members = schema.get("anyOf", schema.get("oneOf"))
    return [schema] if members is None else [kind for one in members for kind in _kinds(one, schemas)]


def _item(schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    """A plausible member of an array."""
    kind = _kinds(schema, schemas)[0] if schema else {}
    match kind.get("type"):
        case "integer" | "number":
            return "65"
        case "array":
            return "[65]"
        case "object":
            return '{"role": "user", "content": "a"}'
    return '"a"'
