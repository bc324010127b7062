"""Grammars of strangers: refused with the reason, or soon done; none hangs and none ends the process."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from bestiary.errors import RequestError
from bestiary.run.trial import TOO_COMPLEX, Trial
from tests.unit.text.tokenizers_rewriting import made

from .test_grammar import allowed, constraint, end_of

DEEP: dict[str, Any] = {}
for _level in range(5000):
    DEEP = {"type": "array", "items": DEEP}
HOSTILE: list[dict[str, Any]] = [
    {"regex": "(a+)+$"},
    {"regex": "((a{1,100}){1,100}){1,100}"},
    {"regex": "(((((a?){20}){20}){20}){20}){20}"},
    {"regex": "a?" * 20_000},
    {"regex": "(" * 20_000 + "a" + ")" * 20_000},
    {"regex": r"\p{L}?" * 2000},
    {"regex": "(a|b)*a(a|b){20}"},
    {"regex": "a{1,1000000000}"},
    {"regex": "[a-z]{0,1000}" * 2000},
    {"regex": "(.*a.*){20}"},
    {"regex": "(" + "|".join("a" * i for i in range(1, 300)) + ")*"},
    {"json_schema": DEEP},
    {"json_schema": {"$ref": "#"}},
    {"json_schema": {"enum": [str(i) for i in range(9999)]}},
    {"json_schema": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}},
    {"json_schema": {"type": "integer", "multipleOf": 99999989}},
    {"json_schema": {"allOf": [{"type": "string", "pattern": f".*{c}.*"} for c in "abcdefghijklmnop"]}},
    {
        "json_schema": {
            "type": "array",
            "minItems": 2**31 - 1,
            "items": {"type": "array", "minItems": 2**31 - 1},
        }
    },
    {"json_schema": {"type": "string", "minLength": 2**31 - 1}},
    {
        "json_schema": {
            "allOf": [{"anyOf": [{"properties": {f"{j}.{i}": True}} for i in range(9)]} for j in range(9)]
        }
    },
    {"json_schema": {"type": "object", "properties": {"x" * 70_000: True}}},
    {
        "json_schema": {
            "$defs": {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(500)},
            "$ref": "#/$defs/d0",
        }
    },
    {"grammar": "start: " + "(" * 30_000 + '"a"' + ")" * 30_000},
    {"grammar": "start: " + '["a"] ' * 10_000},
    {"grammar": "start: r0\n" + "".join(f"r{i}: r{i + 1}\n" for i in range(5000)) + 'r5000: "a"'},
    {"grammar": "start: r0\n" + "".join(f"r{i}: r{i + 1} r{i + 1}\n" for i in range(900)) + 'r900: "a"'},
    {"grammar": 'start: a\na: a a | "x"'},
    {"grammar": 'start: a\na: a a a | "x" | ""'},
    {"grammar": "start: T\nT: " + " & ".join(f"/(.*a.*){{{i}}}/" for i in range(1, 300))},
    {"grammar": "start: %json " + '{"items":' * 5000 + "{}" + "}" * 5000},
    {"grammar": 'start: "' * 8000},
    {"grammar": 'start: %regex {"substring_chars": "' + "ab" * 30_000 + '"}'},
]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_what_a_stranger_asks_is_refused_or_soon_done(number: int) -> None:
    tokenizer, text = made("byte-level").ours, ""
    try:
        held = constraint("byte-level", **HOSTILE[number])
        for _ in range(60):
            found = allowed(held, tokenizer.vocab_size)
            if not (found := found - {end_of(tokenizer)}):
                break
            token = min(found)
            text += tokenizer.decode([token])
            held = held.after(token)
    except RequestError as error:
        text = str(error)
        internal = [word for word in ("backtrace", "verbose", "state", "limits.", "option") if word in text]
    else:
        internal = []
    assert 0 < len(text) < 400
    assert internal == []


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ({"regex": "(a"}, "unclosed group"),
        ({"regex": "(?=a)b"}, "look-around, including look-ahead and look-behind, is not supported"),
        ({"regex": r"(a)\1"}, "backreferences are not supported"),
        ({"regex": r"[^\s\S]"}, "no text matches it"),
        ({"json_schema": False}, "json_schema=False allows no answer"),
        ({"json_schema": {"type": "strin"}}, "Invalid type: strin"),
        ({"json_schema": {"$ref": "#/$defs/none"}}, "Pointer '/$defs/none' does not exist"),
        ({"json_schema": {"format": "zip"}}, "Unknown format: zip"),
        ({"json_schema": {"oneOf": [{"type": "string"}, {"minLength": 3}]}}, "use anyOf"),
        ({"grammar": "begin: A"}, "no start"),
        ({"grammar": 'start: a\n\n\na: "x" b'}, 'line 4, column 4: unknown name: "b"'),
        ({"grammar": "start: <|im_end|>"}, "a grammar is of text alone"),
        ({"grammar": "start: <[5]>"}, "a grammar is of text alone"),
        ({"grammar": '%llguidance {}\nstart: "a"'}, "%llguidance is not supported here"),
        ({"grammar": "start: a\na[temperature=0.5]: /x/"}, "temperature is not supported here"),
        ({"grammar": "start: %json nothing"}, "line 1 is not JSON"),
        ({"grammar": 'start: %json {"uniqueItems": true}'}, "uniqueItems should be false here"),
        ({"grammar": 'start: %json {"x-guidance": {"lenient": true}}'}, "x-guidance"),
    ],
)
def test_a_refusal_says_why(what: dict[str, Any], why: str) -> None:
    with pytest.raises(RequestError) as refused:
        constraint("byte-level", **what)
    assert why in str(refused.value)


def test_a_grammar_says_what_lark_says() -> None:
    """Comments, classes of characters and strings with brackets are no rules, tokens or operators."""
    text = '// <|x|> %json\nstart: "<|a|>" /<b>[?]{1}/ C # ((((\nC: "%json \\"(" | /\\/\\/x/\n'
    tokenizer = made("byte-level").ours
    for answer in ('<|a|><b>?%json "(', "<|a|><b>?//x"):
        held = constraint("byte-level", grammar=text)
        for token in tokenizer.encode(answer):
            assert token in allowed(held, tokenizer.vocab_size)
            held = held.after(token)
        assert allowed(held, tokenizer.vocab_size) == {end_of(tokenizer)}


def test_a_trial_goes_on_after_one_that_ended_it() -> None:
    trial = Trial()
    limits = {"initial_lexer_fuel": 200_000}
    assert trial.error('start: "a"', limits) is None
    first = trial._process
    assert first is not None
    bomb = "start: T\nT: " + " & ".join(f"/(.*a.*){{{i}}}/" for i in range(1, 300))
    assert trial.error(bomb, limits) == TOO_COMPLEX
    assert first.poll() is not None
    assert "unclosed group" in (trial.error("start: /(/", limits) or "")
    second = trial._process
    assert second is not None
    assert second is not first
    del trial
    gc.collect()
    assert second.poll() is not None  # it ends with the object
