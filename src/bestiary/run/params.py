"""What a request asks of sampling: one frozen value, checked as it is made.

The names are vLLM's (vllm/sampling_params.py), which are OpenAI's where OpenAI has one; the bounds of
temperature, penalties and logprobs are those of OpenAI's specification. Every field that reaches the engine
has a bound: most advisories against inference servers are about one that had none.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from ..errors import RequestError

MOST_STOPS, MOST_STOP_CHARACTERS = 16, 256
MOST_STOP_IDS = MOST_BIASES = 1024
MOST_INT = 2**63 - 1


@dataclass(frozen=True)
class _Bound:
    """An interval that a number must lie in; `above` leaves `low` itself out."""

    low: float
    high: float
    above: bool = False

    def __contains__(self, value: Any) -> bool:
        # NaN compares false with everything, so it is refused here too.
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        return (
            f"{'above' if self.above else 'from'} {self.low:g} {'up ' if self.above else ''}to {self.high:g}"
        )


_REALS = {
    "temperature": _Bound(0, 2),
    "top_p": _Bound(0, 1, above=True),
    "min_p": _Bound(0, 1),
    "typical_p": _Bound(0, 1, above=True),
    "repetition_penalty": _Bound(0, 10, above=True),
    "frequency_penalty": _Bound(-2, 2),
    "presence_penalty": _Bound(-2, 2),
}
_BIAS = _Bound(-100, 100)
# name -> (lowest, highest)
_WHOLES = {"top_k": (-1, MOST_INT), "n": (1, 16)}
_WHOLES_OR_NONE = {"max_tokens": (1, MOST_INT), "seed": (0, MOST_INT), "logprobs": (0, 20)}


@dataclass(frozen=True)
class SamplingParams:
    """How to choose tokens, and when to stop.

    temperature: 0 is greedy, and then the four filters below do nothing.
    top_p, top_k, min_p, typical_p: keep only the likeliest tokens; 1, 0 (or -1), 0 and 1 are off.
    repetition_penalty: on tokens of the prompt and the answer; 1 is off.
    frequency_penalty, presence_penalty: on tokens of the answer; 0 is off.
    logit_bias: token id -> what is added to its logit, from -100 to 100; at most 1,024.
    stop: strings that end the answer and are not part of it; at most 16 of 256 characters. One string is
        taken as a tuple of one.
    stop_token_ids: tokens that end the answer and add nothing to its text; at most 1,024.
    max_tokens: None is as many as the context holds; what is beyond the context means the same.
    seed: same seed, same text, whatever else runs; None draws a new one for each request.
    n: how many answers, at most 16.
    logprobs: give each token's log-probability and those of this many likeliest ones, at most 20. They are
        the model's own, before bias, penalties and filters.
    ignore_eos: go on after the model's own end tokens; stop_token_ids still count.

    Raises RequestError, which names the field, its value and its bound.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] | None = None
    stop: str | Sequence[str] | None = ()
    stop_token_ids: Sequence[int] | None = ()
    max_tokens: int | None = 256
    seed: int | None = None
    n: int = 1
    logprobs: int | None = None
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        checked: dict[str, object] = {}
        for name, bound in _REALS.items():
            checked[name] = _real(name, getattr(self, name), bound)
        for name, (low, high) in _WHOLES.items():
            checked[name] = _whole(name, getattr(self, name), low, high)
        for name, (low, high) in _WHOLES_OR_NONE.items():
            value = getattr(self, name)
            checked[name] = None if value is None else _whole(name, value, low, high)
        checked["logit_bias"] = _biases(self.logit_bias)
        checked["stop"] = _stops(self.stop)
        checked["stop_token_ids"] = _stop_ids(self.stop_token_ids)
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if not isinstance(self.ignore_eos, bool):
            raise RequestError(f"ignore_eos={show(self.ignore_eos)} should be True or False")
        if self.greedy and self.n > 1:
            raise RequestError(f"n={self.n} greedy answers would be all the same; set a temperature above 0")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0


class _Short(reprlib.Repr):
    """repr for an error message: never megabytes, and never an error of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 80

    def repr_int(self, x: int, level: int) -> str:
        # repr of an int beyond 4,300 digits raises ValueError (sys.set_int_max_str_digits).
        return f"<an integer of {x.bit_length()} bits>" if x.bit_length() > 256 else repr(x)


show = _Short().repr


def _real(name: str, value: object, bound: _Bound) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or value not in bound:
        raise RequestError(f"{name}={show(value)} should be a number {bound}")
    return float(value)


def _whole(name: str, value: object, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) <= high:
        raise RequestError(f"{name}={show(value)} should be a whole number from {low} to {high}")
    return int(value)


def _items(name: str, value: object, most: int) -> list[object]:
    if value is None:
        return []
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise RequestError(f"{name}={show(value)} should be a sequence")
    items: list[object] = []
    for item in value:
        items.append(item)
        if len(items) > most:
            raise RequestError(f"{name} has more than {most} entries; that is the most")
    return items


def _stops(value: object) -> tuple[str, ...]:
    stops: list[str] = []
    for stop in [value] if isinstance(value, str) else _items("stop", value, MOST_STOPS):
        if not isinstance(stop, str) or not 1 <= len(stop) <= MOST_STOP_CHARACTERS:
            raise RequestError(f"stop={show(stop)} should be 1 to {MOST_STOP_CHARACTERS} characters of text")
        stops.append(stop)
    return tuple(stops)


def _stop_ids(value: object) -> tuple[int, ...]:
    items = _items("stop_token_ids", value, MOST_STOP_IDS)
    return tuple(_whole("stop_token_ids", item, 0, MOST_INT) for item in items)


def _biases(value: object) -> dict[int, float] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise RequestError(f"logit_bias={show(value)} should map token ids to numbers")
    if len(value) > MOST_BIASES:
        raise RequestError(f"logit_bias has {len(value)} entries; {MOST_BIASES} is the most")
    return {
        _whole("a token id of logit_bias", key, 0, MOST_INT): _real(f"logit_bias[{show(key)}]", number, _BIAS)
        for key, number in value.items()
    }
