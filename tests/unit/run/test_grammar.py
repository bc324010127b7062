"""Answers held to a grammar, against the languages themselves, Python's expressions and a JSON validator."""

from __future__ import annotations

import datetime
import json
import random
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import regex
import torch

from bestiary import LLM, BeamParams, SamplingParams
from bestiary.errors import RequestError
from bestiary.run.constrain import Constraint
from bestiary.run.grammar import Grammars
from bestiary.run.sources import source
from bestiary.text import Tokenizer
from tests.unit.text.tokenizers_rewriting import made

KINDS = ["byte-level", "llama", "wordpiece", "clip", "tiktoken", "cpm-english"]


@cache
def grammars(kind: str) -> Grammars:
    """The grammars of a small tokenizer of a kind."""
    return Grammars(made(kind).ours)


def end_of(tokenizer: Tokenizer) -> int:
    """A control token that ends an answer."""
    return max(tokenizer.control.values())


def constraint(kind: str, *, continues: bool = False, **what: Any) -> Constraint:
    """What holds an answer of this kind of tokenizer."""
    held = source(SamplingParams(**what))
    assert held is not None
    return grammars(kind).constraint(held, frozenset([end_of(made(kind).ours)]), continues=continues)


def allowed(held: Constraint, size: int) -> set[int]:
    """Return the tokens that a constraint leaves."""
    return set(held.narrow(torch.zeros(size)).isfinite().nonzero().flatten().tolist())


# Languages as sets of texts, and a way to say each.
WORDS = {"a", "ab", "ab c", "the lazy dog", "the lazy fox", "é", "你好", "x\n\ty", " b"}
NESTED = {"(" * n + "x" + ")" * n for n in range(6)}
LANGUAGES: list[tuple[dict[str, Any], set[str]]] = [
    ({"regex": "|".join(map(regex.escape, sorted(WORDS)))}, WORDS),
    ({"grammar": "start: " + " | ".join(json.dumps(word) for word in sorted(WORDS))}, WORDS),
    ({"json_schema": {"enum": sorted(WORDS)}}, {json.dumps(word, ensure_ascii=False) for word in WORDS}),
    (
        {"regex": "(ab?){0,2}c?"},
        {w + c for w in ("", "a", "ab", "aa", "aab", "aba", "abab") for c in ("", "c")},
    ),
    ({"grammar": 'start: n\nn: "x" | "(" n ")"'}, NESTED),
    (
        {"json_schema": {"type": "array", "items": {"enum": [1, True]}, "maxItems": 1}},
        {"[]", "[1]", "[true]"},
    ),
]


@pytest.mark.parametrize(("what", "language"), LANGUAGES, ids=[str(i) for i in range(len(LANGUAGES))])
@pytest.mark.parametrize("kind", KINDS)
def test_a_token_is_allowed_where_some_text_goes_on_with_it(
    kind: str, what: dict[str, Any], language: set[str]
) -> None:
    tokenizer, draw, seen = made(kind).ours, random.Random(1), 0
    end = end_of(tokenizer)
    for _ in range(12):
        held, ids, text = constraint(kind, **what), list[int](), ""
        while True:
            found = allowed(held, tokenizer.vocab_size)
            assert (end in found) == (text in language), text
            found -= {end}
            for token in range(tokenizer.vocab_size):
                longer = tokenizer.decode([*ids, token])
                if "\ufffd" in longer or token in tokenizer.control.values():
                    continue
                # Spaces between the parts of JSON, and more brackets than the set has, are texts too.
                if (
                    len(longer) > len(text)
                    and set(longer) <= set("".join(language))
                    and "((((((" not in longer
                ):
                    goes_on = any(one.startswith(longer) for one in language)
                    assert (token in found) == goes_on, (text, longer)
                    seen += 1
            inside = [
                t for t in sorted(found) if any(w.startswith(tokenizer.decode([*ids, t])) for w in language)
            ]
            if not inside:
                break
            ids.append(draw.choice(inside))
            held, text = held.after(ids[-1]), tokenizer.decode(ids)
    assert seen > 10


def walked(
    held: Constraint, tokenizer: Tokenizer, draw: random.Random, *, most: int, hasty: Collection[str] = ()
) -> tuple[str, bool]:
    """Choose tokens at random; return the text, and whether it came to an end.

    hasty: of these texts, one is taken where it may be, half of the times, and an end always.
    """
    ids, end = list[int](), end_of(tokenizer)
    for _ in range(most):
        found = allowed(held, tokenizer.vocab_size)
        if end in found and (hasty or draw.random() < 0.3 or found == {end}):
            return tokenizer.decode(ids), True
        found -= {end}
        sooner = [token for token in found if tokenizer.decode([token], continues=True).strip() in hasty]
        ids.append(draw.choice(sooner if sooner and draw.random() < 0.7 else sorted(found)))
        held = held.after(ids[-1])
    return tokenizer.decode(ids), False


SAFE = [
    r"[a-z]+",
    r"(foo|bar)+[0-9]*",
    r"\(\d{3}\) \d{3}-\d{4}",
    r"(a|b)*abb",
    r"[^x]{2,5}x",
    r"a{0,3}b{2,}c?",
    r"(?i:yes|no)[.!]?",
    r"[\p{L} ]{1,12}",
    r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?",
    r"(.|\n){0,10}",
    r"((a+)+)+$",
    r"^x[\s\S]*y$",
    r"[一-龥]{1,4}。",
    r"([01]?\d|2[0-3]):[0-5]\d",
]


@pytest.mark.parametrize("pattern", SAFE)
def test_an_answer_of_a_regex_matches_it(pattern: str) -> None:
    compiled, ended = regex.compile(pattern), 0
    for kind in ("byte-level", "llama"):
        tokenizer, draw = made(kind).ours, random.Random(2)
        for _ in range(12):
            text, over = walked(constraint(kind, regex=pattern), tokenizer, draw, most=30)
            # What is not at its end is the beginning of a match; half a character is shown as U+FFFD.
            assert compiled.fullmatch(text.rstrip("\ufffd"), partial=not over), (kind, text)
            ended += over
    assert ended


PERSON = {
    "type": "object",
    "title": "Person",
    "properties": {
        "name": {"type": "string", "maxLength": 8, "description": "whole"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "mail": {"anyOf": [{"type": "string", "pattern": "^[a-z]{1,4}@[a-z]{1,4}$"}, {"type": "null"}]},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "below": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2},
            },
            "required": ["value"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
SCHEMAS: list[Any] = [
    True,
    {"type": "object"},
    {"type": "array", "maxItems": 3},
    PERSON,
    TREE,
    {"const": {"a": [1, None, "é\n"]}},
    {"enum": [1, "one", None, {"x": True}]},
    {"type": "boolean"},
    {"type": "null"},
    {"type": ["string", "integer"]},
    {"type": "integer", "minimum": -5, "exclusiveMaximum": 1000},
    {"type": "integer", "multipleOf": 7},
    {"type": "number", "minimum": 0.5, "maximum": 2.25},
    {"type": "string", "minLength": 2, "maxLength": 4},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "ipv4"},
    {"type": "string", "format": "uuid"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "pattern": "^b+c"},
    {
        "type": "array",
        "prefixItems": [{"type": "integer"}, {"type": "boolean"}],
        "items": False,
        "minItems": 2,
    },
    {"type": "array", "items": {"type": "integer", "maximum": 9, "minimum": 0}, "minItems": 2, "maxItems": 4},
    {"type": "object", "additionalProperties": {"type": "boolean"}, "minProperties": 1, "maxProperties": 2},
    {"type": "object", "patternProperties": {"^x[0-9]$": {"type": "null"}}, "additionalProperties": False},
    {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 30}]},
    {
        "anyOf": [
            {"type": "integer"},
            {"type": "object", "required": ["a"], "properties": {"a": {"type": "null"}}},
        ]
    },
    {"oneOf": [{"type": "boolean"}, {"type": "array", "items": {"type": "null"}}]},
    {"type": "object", "properties": {f"p{i}": {"type": "boolean"} for i in range(12)}},
]


FORMATS = jsonschema.FormatChecker()


@FORMATS.checks("date", raises=ValueError)
def is_date(text: object) -> bool:
    """Python has no year 0, and RFC 3339 has."""
    return isinstance(text, str) and bool(datetime.date.fromisoformat(text.replace("0000-", "2000-", 1)))


@pytest.mark.parametrize("number", range(len(SCHEMAS)))
def test_an_answer_of_a_schema_is_valid(number: int) -> None:
    schema, ended = SCHEMAS[number], 0
    validator = jsonschema.Draft202012Validator(schema, format_checker=FORMATS)
    for kind in ("byte-level", "tiktoken", "llama"):
        draw = random.Random(number)
        for _ in range(8):
            held = constraint(kind, json_schema=schema)
            text, over = walked(
                held, made(kind).ours, draw, most=400, hasty=['"', "}", "]", "0", "-", ":", ","]
            )
            if over:
                validator.validate(json.loads(text))
                assert text == text.strip()
                ended += 1
    assert ended > 8


def test_places_stay_what_they_are_when_others_go_on() -> None:
    """Beams go on from one place in several ways, in any order."""
    tokenizer, draw = made("llama").ours, random.Random(3)
    size = tokenizer.vocab_size
    places: list[tuple[list[int], Constraint]] = [([], constraint("llama", json_schema=PERSON))]
    for _ in range(120):
        ids, held = draw.choice(places)
        found = allowed(held, size) - {end_of(tokenizer)}
        if found:
            token = draw.choice(sorted(found))
            places.append(([*ids, token], held.after(token)))
    assert max(len(ids) for ids, _ in places) > 5
    for ids, held in draw.sample(places, 40):
        alone = constraint("llama", json_schema=PERSON)
        for token in ids:
            alone = alone.after(token)
        assert allowed(held, size) == allowed(alone, size)


def test_a_token_that_does_not_fit_leaves_nothing() -> None:
    tokenizer = made("llama").ours
    held = constraint("llama", regex="[0-9]+").after(tokenizer.encode("x")[-1])
    assert allowed(held, tokenizer.vocab_size) == set()
    assert allowed(held.after(5), tokenizer.vocab_size) == set()


def test_an_answer_that_goes_on_keeps_its_first_space() -> None:
    tokenizer = made("llama").ours
    pieces = [tokenizer.piece(token) for token in range(tokenizer.vocab_size)]
    bare, spaced = pieces.index(b"t"), pieces.index(b" t")
    for pattern, continues, tokens in (
        ("the", False, {bare, spaced}),  # the space in front is not printed, and so counts for nothing
        ("the", True, {bare}),
        (" the", True, {spaced}),
    ):
        found = allowed(constraint("llama", continues=continues, regex=pattern), tokenizer.vocab_size)
        assert found & {bare, spaced} == tokens


# A whole model.


@pytest.fixture(scope="module")
def llm(folder: Path) -> LLM:
    """A tiny random chat model."""
    return LLM(folder)


def test_a_random_model_gives_valid_json(llm: LLM) -> None:
    validator = jsonschema.Draft202012Validator(PERSON)
    bias = {llm.tokenizer.encode(mark)[0]: 20.0 for mark in '"},'}
    params = SamplingParams(json_schema=PERSON, seed=1, n=4, max_tokens=300, logit_bias=bias)
    answers = [*llm.generate("x", params)[0].outputs]
    answers += llm.chat([{"role": "user", "content": "x"}], params)[0].outputs
    assert [one.finish_reason for one in answers] == ["stop"] * 8
    for one in answers:
        validator.validate(json.loads(one.text))
    streamed = "".join(chunk.text for chunk in llm.stream("x", params) if chunk.index == 0)
    assert streamed == answers[0].text


def test_beams_stay_within_a_grammar(llm: LLM) -> None:
    params = BeamParams(width=6, n=6, regex="(ab|ba){2}x?", max_tokens=20)
    found = llm.beam_search("x", params)[0].outputs
    assert len({one.text for one in found}) > 3
    assert all(regex.fullmatch("(ab|ba){2}x?", one.text) for one in found)


def test_a_grammar_needs_an_end(llm: LLM) -> None:
    with pytest.raises(RequestError, match="need a token that ends the answer"):
        llm.generate("x", SamplingParams(regex="a", ignore_eos=True))
