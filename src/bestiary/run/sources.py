"""What llguidance is given for a schema, a regular expression or a grammar of a stranger; or why it is not.

What is refused here by its form has cost other servers, or llguidance itself, more than its fuel counts: a
chain of 3,000 rules overflows the stack, and 20,000 optional parts in one expression take 15 s before the
first of them is counted.
"""

from __future__ import annotations

import json
import re
from typing import Any

from llguidance import regex_to_lark

from ..errors import RequestError
from . import schemas
from .params import Constrained, show

# Rules, and the brackets within one another in each: what compiling goes down at once. The stack of 8 MB
# lasted for 2,500 of them.
_MOST_LEVELS = 1000
# Repetitions and alternatives. Taking the derivative of so many optional parts in a row takes 0.1 s.
_MOST_OPERATORS = 2048
_DEPTH = 200  # of brackets
# Every text of the grammar may come next, not only the one way that forced texts would be cut into tokens.
_HEADER = '%llguidance {"no_forcing": true}\n'
# White space between the parts of JSON: enough to indent, and no answer of nothing else.
_SPACE = r"[\x20\x0A\x0D\x09]{1,32}"


def source(params: Constrained) -> str | None:
    """Return the grammar of a request as llguidance takes it; None where there is none.

    Raises RequestError for one that is refused by its form.
    """
    if params.json_schema is not None:
        return f"{_HEADER}start: {_json(params.json_schema)}\n"
    if params.regex is not None:
        _check_operators("regex", _operators(params.regex))
        _check_depth("regex", params.regex)
        return f"{_HEADER}start: /{regex_to_lark(params.regex, '')}/\n"
    if params.grammar is not None:
        return _HEADER + _Reading().of(params.grammar)
    return None


def _json(schema: Any) -> str:
    if schema is False:
        raise RequestError("json_schema=False allows no answer at all")
    _check_operators("the patterns of json_schema", sum(map(_operators, schemas.patterns(schema))))
    for pattern in schemas.patterns(schema):
        _check_depth("a pattern of json_schema", pattern)
    how = {"whitespace_pattern": _SPACE, "lenient": False, "coerce_one_of": False}
    return "%json " + json.dumps(
        {**({} if schema is True else schema), "x-guidance": how}, ensure_ascii=False
    )


def _operators(regex: str) -> int:
    return sum(map(regex.count, "?*+{|"))


def _check_operators(what: str, operators: int) -> None:
    if operators > _MOST_OPERATORS:
        raise RequestError(
            f"{what}: {operators} repetitions and alternatives; {_MOST_OPERATORS} are the most (long lists "
            "are for choice)"
        )


def _check_depth(what: str, regex: str) -> None:
    depth = 0
    for character in re.sub(r"\\.", "", regex, flags=re.DOTALL):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth > _DEPTH:
            raise RequestError(f"{what}: groups are nested deeper than {_DEPTH} levels; that is the most")


# The tokens of llguidance's form of Lark (its parser/src/lark/lexer.rs), as far as they matter here.
_TOKEN = re.compile(
    r"""(?P<text>"(?:\\.|[^"\\\n])*"i?)|(?P<note>(?:\#|//)[^\n]*)|(?P<regex>/(?:\\.|[^/\\])+/[imslux]*)"""
    r"""|(?P<special><[^<>\s]+>)|(?P<word>[@%]?[!?_]*[A-Za-z][A-Za-z0-9_-]*)|(?P<other>.)""",
    re.DOTALL,
)
_REFUSED = {
    "%llguidance": "its options are not taken",
    "temperature": "a rule has no temperature of its own; set that of the request",
    "max_tokens": "a rule that is cut off is no text of the grammar; say {0,N}",
    "stop": "what is hidden from the answer cannot be taken back; say suffix",
}


class _Reading:
    """Reads a grammar once, from its start to its end, and counts."""

    def __init__(self) -> None:
        self._operators = self._levels = self._depth = self._deepest = 0

    def of(self, grammar: str) -> str:
        """Return a grammar, its schemas as they are checked. Raises RequestError."""
        parts, place = list[str](), 0
        while match := _TOKEN.match(grammar, place):
            place, token, kind = match.end(), match[0], match.lastgroup
            if kind == "special":
                raise RequestError(f"grammar: {show(token)} names a token; a grammar is of text alone")
            if kind == "regex":
                self._operators += _operators(token)
            elif token == "%json":  # noqa: S105
                value, place = _value(grammar, place)
                token = _json(schemas.checked(value, "a schema in the grammar"))
            elif token == "%regex":  # noqa: S105
                value, place = _value(grammar, place)
                token = f"%regex {json.dumps(value)}"
            elif kind == "word":
                _check_word(token, grammar[place : place + 80])
            elif kind == "other":
                self._count(token)
            parts.append(token)
        self._rule_ends()
        _check_operators("grammar", self._operators)
        return "".join(parts)

    def _count(self, character: str) -> None:
        self._operators += character in "?*+~|[{&"
        self._depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(character, 0)
        self._deepest = max(self._deepest, self._depth)
        if character == ":":
            self._rule_ends()

    def _rule_ends(self) -> None:
        self._levels += 1 + self._deepest
        self._depth = self._deepest = 0
        if self._levels > _MOST_LEVELS:
            raise RequestError(
                f"grammar: more than {_MOST_LEVELS} rules and brackets within one another; that is the most"
            )


def _value(grammar: str, place: int) -> tuple[Any, int]:
    """Return the JSON behind a %json or a %regex, and where it ends."""
    start = place + len(grammar[place:]) - len(grammar[place:].lstrip())
    try:
        return json.JSONDecoder().raw_decode(grammar, start)
    except (ValueError, RecursionError) as error:
        line = grammar.count("\n", 0, start) + 1
        raise RequestError(f"grammar: what stands behind % in line {line} is not JSON") from error


def _check_word(word: str, rest: str) -> None:
    if word in _REFUSED and (word[0] == "%" or rest.lstrip()[:1] == "="):
        raise RequestError(f"grammar: {word} is not supported here: {_REFUSED[word]}")
