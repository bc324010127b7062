"""SamplingParams: every field takes what is in its bounds and refuses the rest by name."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from bestiary.errors import RequestError
from bestiary.run.constrain import Every
from bestiary.run.params import SamplingParams, show

INSIDE: dict[str, list[Any]] = {
    "temperature": [0, 2, 0.7, 5e-324, Fraction(1, 2), np.float32(0.5)],
    "top_p": [1, 0.5, 5e-324],
    "top_k": [-1, 0, 1, 2**63 - 1, np.int64(4)],
    "min_p": [0, 1, 0.05, -0.0],
    "typical_p": [1, 0.2],
    "repetition_penalty": [10, 1.1, 1e-3],
    "frequency_penalty": [-2, 2, 0],
    "presence_penalty": [-2, 2, 0],
    "logit_bias": [None, {}, {0: -100, 5: 100.0}, dict.fromkeys(range(1024), 0)],
    "stop": [None, (), "a", ["a", "\n\n"], ["x" * 256] * 16],
    "stop_token_ids": [None, [], [0, 2**31], range(1024)],
    "max_tokens": [None, 1, 2**63 - 1],
    "seed": [None, 0, 2**63 - 1],
    "n": [1, 16],
    "logprobs": [None, 0, 20],
    "ignore_eos": [True, False],
    "choice": [None, ["a"], ("yes", "no"), ["x" * 4096] * 1024],
    "bad_words": [None, (), ["a", " b"], ["x" * 256] * 1024],
    "allowed_token_ids": [None, [0, 5], range(70000)],
    "min_tokens": [0, 1, 2**63 - 1],
    "no_repeat_ngram_size": [0, 3, 2**63 - 1],
    "constraint": [None, Every(), lambda answer: None],
}

# What no field takes, then what each one does not take.
NEVER: list[Any] = [
    float("nan"),
    float("inf"),
    -float("inf"),
    10**5000,
    -(10**5000),
    object(),
    1j,
    [[]],
    b"a",
]
OUTSIDE: dict[str, list[Any]] = {
    "temperature": [-1e-9, 2.0001, True, "1", None, Decimal(1), [1]],
    "top_p": [0, -0.0, 1.0001, True, "0.5", None],
    "top_k": [-2, 2**63, 1.0, True, "1", None],
    "min_p": [-1e-9, 1.0001, True, "0", None],
    "typical_p": [0, 1.0001, True, None],
    "repetition_penalty": [0, -1, 10.01, True, None],
    "frequency_penalty": [-2.01, 2.01, True, None],
    "presence_penalty": [-2.01, 2.01, True, None],
    "logit_bias": [
        {-1: 0},
        {0: 100.1},
        {0: float("nan")},
        {"0": 1},
        {True: 1},
        {0: True},
        {1.0: 1},
        [(0, 1)],
        dict.fromkeys(range(1025), 0),
    ],
    "stop": ["", [""], ["x" * 257], "x" * 257, ["a"] * 17, [1], [None], {"a": 1}, 5],
    "stop_token_ids": [[-1], ["1"], [1.0], [True], "12", range(1025), {1: 2}, 5],
    "max_tokens": [0, -1, 2**63, 1.0, True, "1"],
    "seed": [-1, 2**63, 1.0, True, "1"],
    "n": [0, 17, 1.0, True, None],
    "logprobs": [-1, 21, 1.0, True, "1"],
    "ignore_eos": [0, 1, "true", None],
    "choice": [[], [""], "yes", [1], ["x" * 4097], ["a"] * 1025],
    "bad_words": [[""], "a", [None], ["x" * 257], ["a"] * 1025],
    "allowed_token_ids": [[], [-1], ["1"], [True], "12", range(2**20 + 1), 5],
    "min_tokens": [-1, 2**63, 1.0, True, None],
    "no_repeat_ngram_size": [-1, 2**63, 1.0, True, None],
    "constraint": [1, "a", [1, 2]],
}


def cases(table: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    return [(name, value) for name, values in table.items() for value in values]


@pytest.mark.parametrize(("name", "value"), cases(INSIDE))
def test_takes_what_is_inside(name: str, value: Any) -> None:
    SamplingParams(**{name: value})


@pytest.mark.parametrize(("name", "value"), cases(OUTSIDE))
def test_refuses_what_is_outside_and_names_it(name: str, value: Any) -> None:
    with pytest.raises(RequestError, match=name) as caught:
        SamplingParams(**{name: value})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", INSIDE)
@pytest.mark.parametrize("value", NEVER, ids=lambda value: show(value)[:20])
def test_refuses_what_no_field_takes(name: str, value: Any) -> None:
    with pytest.raises(RequestError, match=name):
        SamplingParams(**{name: value})


def test_values_are_kept_as_plain_numbers_and_tuples() -> None:
    params = SamplingParams(
        temperature=Fraction(1, 2),  # type: ignore[arg-type]
        top_k=np.int64(3),  # type: ignore[arg-type]
        stop="end",
        stop_token_ids=[1, 2],
        logit_bias={np.int64(7): np.float32(1)},  # type: ignore[dict-item]
    )
    assert type(params.temperature) is float
    assert params.temperature == 0.5
    assert type(params.top_k) is int
    assert (params.stop, params.stop_token_ids, params.logit_bias) == (("end",), (1, 2), {7: 1.0})


def test_several_greedy_answers_are_refused() -> None:
    with pytest.raises(RequestError, match="n=2 greedy"):
        SamplingParams(temperature=0, n=2)


def test_a_long_value_is_shown_short() -> None:
    assert len(show("x" * 10**6)) < 100
    assert len(show([10**5000] * 10**4)) < 300
    assert show(10**5000) == "<an integer of 16610 bits>"
