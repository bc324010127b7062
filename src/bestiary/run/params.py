"""What a request asks of sampling or of beam search: one frozen value, checked as it is made.

The names are vLLM's (vllm/sampling_params.py), which are OpenAI's where OpenAI has one; those of beam search
are transformers'. The bounds of temperature, penalties and logprobs are those of OpenAI's specification.
Every field that reaches the engine has a bound: most advisories against inference servers are about one that
had none.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal

from ..errors import RequestError
from . import schemas
from .constrain import Constraint, Following, Follows

MOST_STOPS, MOST_STOP_CHARACTERS = 16, 256
MOST_STOP_IDS = MOST_BIASES = 1024
MOST_CHOICES = MOST_BAD_WORDS = 1024
MOST_CHOICE_CHARACTERS = 4096
MOST_GRAMMAR = 64 << 10  # bytes of a regex or a grammar
MOST_BEAMS, MOST_ALLOWED = 64, 2**20
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


@dataclass(frozen=True, kw_only=True)
class Constrained:
    """What an answer must be, whatever searches for it.

    choice: the answer is exactly one of these texts; at most 1,024 of 4,096 characters.
    json_schema: the answer is JSON of this schema, a dictionary or a bool; {"type": "object"} is any object.
        Its bounds are those of run/schemas.py.
    regex: the whole answer matches this regular expression, in the syntax of Rust's regex.
    grammar: the answer is a text of this grammar, in llguidance's form of Lark's syntax. Both at most 64 KiB.
        At most one of choice, json_schema, regex and grammar is given.
    bad_words: texts whose token sequences, with and without a space in front, are in no answer; at most
        1,024 of 256 characters. Other ways to cut the same text into tokens are not found, as in vLLM.
    allowed_token_ids: the only tokens there are, end tokens too; None is all.
    min_tokens: how many tokens an answer has before one that ends it; 0 is off.
    no_repeat_ngram_size: no sequence of so many tokens is twice in prompt and answer (of an encoder-decoder:
        in the answer); 0 is off. The name is transformers'.
    constraint: a Constraint (run/constrain.py), or a function: the ids of the answer so far -> the ids that
        may come next, or None for all.

    Raises RequestError, which names the field, its value and its bound.
    """

    choice: Sequence[str] | None = None
    json_schema: Mapping[str, Any] | bool | None = None
    regex: str | None = None
    grammar: str | None = None
    bad_words: Sequence[str] | None = ()
    allowed_token_ids: Sequence[int] | None = None
    min_tokens: int = 0
    no_repeat_ngram_size: int = 0
    constraint: Constraint | Following | None = None

    def __post_init__(self) -> None:
        checked: dict[str, object] = {
            "bad_words": _texts("bad_words", self.bad_words, MOST_BAD_WORDS, MOST_STOP_CHARACTERS),
            "min_tokens": _whole("min_tokens", self.min_tokens, 0, MOST_INT),
            "no_repeat_ngram_size": _whole("no_repeat_ngram_size", self.no_repeat_ngram_size, 0, MOST_INT),
        }
        checked |= _structure(self)
        if self.choice is not None:
            choice = _texts("choice", self.choice, MOST_CHOICES, MOST_CHOICE_CHARACTERS)
            checked["choice"] = _some("choice", choice)
        if self.allowed_token_ids is not None:
            ids = _ids("allowed_token_ids", self.allowed_token_ids, MOST_ALLOWED)
            checked["allowed_token_ids"] = _some("allowed_token_ids", ids)
        if self.constraint is not None and not isinstance(self.constraint, Constraint):
            if not callable(self.constraint):
                raise RequestError(
                    f"constraint={show(self.constraint)} should be a Constraint, or a function of the "
                    "answer's ids"
                )
            checked["constraint"] = Follows(self.constraint)
        for name, value in checked.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class SamplingParams(Constrained):
    """How to choose tokens, and when to stop; and what Constrained says of the answer.

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
        super().__post_init__()
        checked: dict[str, object] = {}
        for name, bound in _REALS.items():
            checked[name] = _real(name, getattr(self, name), bound)
        for name, (low, high) in _WHOLES.items():
            checked[name] = _whole(name, getattr(self, name), low, high)
        for name, (low, high) in _WHOLES_OR_NONE.items():
            value = getattr(self, name)
            checked[name] = None if value is None else _whole(name, value, low, high)
        checked["logit_bias"] = _biases(self.logit_bias)
        stop = [self.stop] if isinstance(self.stop, str) else self.stop
        checked["stop"] = _texts("stop", stop, MOST_STOPS, MOST_STOP_CHARACTERS)
        checked["stop_token_ids"] = _ids("stop_token_ids", self.stop_token_ids, MOST_STOP_IDS)
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        _flag("ignore_eos", self.ignore_eos)
        if self.greedy and self.n > 1:
            raise RequestError(f"n={self.n} greedy answers would be all the same; set a temperature above 0")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0


def by_length(length: int, power: float) -> float:
    """Return length ** power: what transformers and fairseq divide a hypothesis's log-probability by.

    fairseq's search is this with early_stopping=True; both count the end token.
    """
    return float(length**power)


def by_gnmt(length: int, power: float) -> float:
    """Return ((5 + length) / 6) ** power (Wu et al. 2016, arXiv:1609.08144, eq. 14).

    The Transformer of 2017 was decoded so: 4 beams, power 0.6 (arXiv:1706.03762, 6.1; tensor2tensor's
    beam_search.py, which counts the end token too).
    """
    return float(((5 + length) / 6) ** power)


@dataclass(frozen=True)
class BeamParams(Constrained):
    """How to search for the likeliest answers; and what Constrained says of them. Defaults as transformers'.

    width: how many hypotheses are followed side by side, at most 64. n: how many of the best are returned.
    length_penalty: the power of `penalty`; from -10 to 10. Above 0 favours long answers, below 0 short ones.
    penalty: (tokens of a hypothesis, its end token counted, length_penalty) -> what its log-probability is
        divided by to be its score: by_length, or by_gnmt.
    early_stopping: when to stop once `width` hypotheses have ended. True: at once. False: when the likeliest
        that goes on would score less than all of them if it ended now. "never": when it would even with all
        of max_tokens, where length_penalty favours long ones.
    max_tokens, stop_token_ids, ignore_eos: as in SamplingParams.

    Raises RequestError, which names the field, its value and its bound.
    """

    width: int = 4
    n: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    max_tokens: int | None = 256
    stop_token_ids: Sequence[int] | None = ()
    ignore_eos: bool = False
    penalty: Callable[[int, float], float] = by_length

    def __post_init__(self) -> None:
        super().__post_init__()
        width = _whole("width", self.width, 1, MOST_BEAMS)
        checked: dict[str, object] = {
            "width": width,
            "n": _whole("n", self.n, 1, width),
            "length_penalty": _real("length_penalty", self.length_penalty, _Bound(-10, 10)),
            "stop_token_ids": _ids("stop_token_ids", self.stop_token_ids, MOST_STOP_IDS),
        }
        if self.max_tokens is not None:
            checked["max_tokens"] = _whole("max_tokens", self.max_tokens, 1, MOST_INT)
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        _flag("ignore_eos", self.ignore_eos)
        if not callable(self.penalty):
            raise RequestError(f"penalty={show(self.penalty)} should be a function: by_length or by_gnmt")
        if not isinstance(self.early_stopping, bool) and self.early_stopping != "never":
            raise RequestError(f"early_stopping={show(self.early_stopping)} should be True, False or 'never'")


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


def _texts(name: str, value: object, most: int, longest: int) -> tuple[str, ...]:
    texts: list[str] = []
    for text in _items(name, value, most):
        if not isinstance(text, str) or not 1 <= len(text) <= longest:
            raise RequestError(f"{name}={show(text)} should be 1 to {longest} characters of text")
        texts.append(text)
    return tuple(texts)


def _ids(name: str, value: object, most: int) -> tuple[int, ...]:
    return tuple(_whole(name, item, 0, MOST_INT) for item in _items(name, value, most))


def _structure(params: Constrained) -> dict[str, object]:
    """Return the fields that say what a whole answer is."""
    named = ("choice", "json_schema", "regex", "grammar")
    if len(given := [name for name in named if getattr(params, name) is not None]) > 1:
        raise RequestError(f"{' and '.join(given)} each say what the whole answer is; give one of them")
    found: dict[str, object] = {}
    if params.json_schema is not None:
        found["json_schema"] = schemas.checked(params.json_schema)
    for name in ("regex", "grammar"):
        text = getattr(params, name)
        if text is not None and not (isinstance(text, str) and 1 <= _size(text) <= MOST_GRAMMAR):
            raise RequestError(f"{name}={show(text)} should be 1 to {MOST_GRAMMAR} bytes of text")
    return found


def _size(text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        return 0


def _some(name: str, items: tuple[object, ...]) -> tuple[object, ...]:
    if not items:
        raise RequestError(f"{name}=() leaves nothing to choose from; None is no constraint")
    return items


def _flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise RequestError(f"{name}={show(value)} should be True or False")


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
