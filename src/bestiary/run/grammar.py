"""Answers held to a grammar, token by token: JSON of a schema, a regular expression, a context-free grammar.

llguidance (https://github.com/guidance-ai/llguidance) keeps the place in the grammar and says which texts
may come next; run/spelling.py says which tokens have them. A grammar comes from a stranger, so what it may
cost is bounded: by its form (run/sources.py), by a first compilation in a process of its own, and by fuel at
every step.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from dataclasses import dataclass

import numpy
import torch
from llguidance import LLMatcher, LLParserLimits
from torch import Tensor

from ..errors import RequestError
from ..text.tokenizer import Tokenizer
from .spelling import Spelling
from .trial import Trial

# At about 50 units of fuel a microsecond for what is built at first and 14 for a step, each is done within
# some 10 ms; llguidance's own limits are up to 12 times these. A state of the lexer takes 1 to 2 kB.
_LIMITS = {
    "max_items_in_row": 1000,
    "initial_lexer_fuel": 200_000,
    "step_lexer_fuel": 100_000,
    "step_max_items": 20_000,
    "max_lexer_states": 20_000,
    "max_grammar_size": 100_000,
}
_MOST_KEPT = 16  # compiled grammars: a server is asked for the same few again and again


class Grammars:
    """The grammars that answers of one tokenizer were held to, compiled; those used last are kept.

    Not for two threads at once.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._spelling = Spelling(tokenizer)
        self._kept: OrderedDict[str, LLMatcher] = OrderedDict()
        self._trial = Trial()

    def constraint(self, source: str, ends: frozenset[int], *, continues: bool) -> Grammar:
        """Return what holds an answer to a grammar that run/sources.py made.

        ends: the tokens that may stand where the grammar is at an end, and nowhere else. continues: the
        answer goes on after another text. Raises RequestError for a grammar that is refused; it says why.
        """
        if source not in self._kept:
            self._kept[source] = self._compiled(source)
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(source)
        walk = _Walk(self._kept[source].deep_copy(), 0)
        return Grammar(self._spelling, tuple(sorted(ends)), walk, self._spelling.start(continues=continues))

    def _compiled(self, source: str) -> LLMatcher:
        refused = self._trial.error(source, _LIMITS)
        if refused is not None:
            raise _refusal(refused)
        # Errors in full would tell a client of what others asked, and of the machine.
        limits = LLParserLimits(**_LIMITS, precompute_large_lexemes=False, verbose_errors=False)
        matcher = LLMatcher(self._spelling.tokens, source, log_level=0, limits=limits)
        if matcher.is_error():
            raise _refusal(matcher.get_error())
        return matcher


@dataclass
class _Walk:
    """A place in a grammar that moves on: a matcher, and how many tokens it has taken."""

    matcher: LLMatcher
    length: int

    def at(self, length: int) -> _Walk:
        """Return a walk that has taken the first so many tokens of this one: itself, or a copy gone back."""
        if length == self.length:
            return self
        copy = self.matcher.deep_copy()
        copy.rollback(self.length - length)
        return _Walk(copy, length)


class Grammar:
    """What a grammar leaves of an answer: a Constraint (run/constrain.py).

    It is a place on a walk through the grammar. Places behind one another share a walk, which goes on as they
    are asked; one that is asked after it has gone on takes a copy. So an answer on its own costs no copies,
    and beams cost one where they part.
    """

    def __init__(self, spelling: Spelling, ends: tuple[int, ...], walk: _Walk, place: int) -> None:
        self._spelling, self._ends = spelling, ends
        self._place = place  # of the decoder, whose number says what tokens print here
        self._walk, self._length = walk, walk.length
        self._token: int | None = None  # one that was taken, and that the walk does not know of yet
        self._lost = False  # the tokens so far begin no text of the grammar

    def narrow(self, logits: Tensor) -> Tensor:
        """Return logits (V,) of the tokens that may come next, -inf elsewhere.

        Raises RequestError where the grammar is too complex to be followed further.
        """
        walk, kept = self._arrived(), torch.full_like(logits, -math.inf)
        if self._lost:
            return kept
        bits = numpy.frombuffer(walk.matcher.compute_bitmask(), dtype=numpy.uint8)
        if walk.matcher.is_error():
            if _NOTHING in walk.matcher.get_error():  # the vocabulary has no token to go on with
                return kept
            raise _refusal(walk.matcher.get_error())
        texts = torch.from_numpy(numpy.unpackbits(bits, bitorder="little")).bool()
        allowed = texts[self._spelling.place(self._place).texts[: len(logits)]].to(logits.device)
        ends = [end for end in self._ends if end < len(logits)]
        allowed[ends] = walk.matcher.is_accepting()
        return torch.where(allowed, logits, kept)

    def after(self, token: int) -> Grammar:
        """Return what is left of an answer that has this token too."""
        rest = Grammar(self._spelling, self._ends, self._arrived(), self._place)
        rest._length, rest._token, rest._lost = self._length, token, self._lost
        return rest

    def _arrived(self) -> _Walk:
        """Return the walk, at this place."""
        self._walk = self._walk.at(self._length)
        if self._token is not None and not self._lost:
            text = int(self._spelling.place(self._place).texts[self._token])
            self._lost = self._walk.matcher.try_consume_tokens([text]) != 1
            if not self._lost:
                self._walk.length = self._length = self._length + 1
                self._place = self._spelling.following(self._place, self._token)
        self._token = None
        return self._walk


def _too_complex() -> RequestError:
    return RequestError(
        "the grammar is too complex to be followed; have fewer repetitions within one another, fewer parts "
        "that may be left out, and no rules that match the same text"
    )


_NOTHING = "NoExtension"
# What llguidance says -> what is told; the first that is found counts. Its own words name its settings.
_TOLD = {
    "panic": "it holds something that is not supported",
    _NOTHING: "no text matches it",
    "oneOf": "the parts of oneOf may match the same value; use anyOf",
    "schema too large": None,
    "Unable to determine": None,
    "Failed to generate regex": None,
    "uel exhausted": None,
    "too many": None,
    "Too many": None,
    "too large": None,
    "too complex": None,
    "Current row has": None,
    "precomputation failed": None,
    "limit": None,
}


_WHOLE = "at 2(8): "


def _refusal(error: str) -> RequestError:
    """Return the error for a grammar that llguidance refuses, from what it says of it."""
    for part, told in _TOLD.items():
        if part in error:
            return _too_complex() if told is None else RequestError(f"the grammar cannot be used: {told}")
    found = re.search(r"^error: (.*)$", error, re.MULTILINE)
    first = error.partition("\n")[0]
    where = re.match(r"(?:at )?(\d+)\((\d+)\): ", first)
    why = found[1] if found else first[where.end() :] if where else first
    # The first line is the header that run/sources.py writes; a regex or a schema stands behind "start: ".
    place = f"line {int(where[1]) - 1}, column {where[2]}: " if where and where[0] != _WHOLE else ""
    why = why.removeprefix("failed to compile JSON schema: ")[:160]
    return RequestError(f"the grammar cannot be used: {place}{why}")
