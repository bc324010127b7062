"""What may follow: constraints on an answer, for whatever searches for it.

A constraint is a value. It narrows the logits of the next token, and `after` a token it is what is left of
it; nothing is undone, so that beams may go on from one in several ways. A grammar library is one more
implementation: the mask of its matcher in `narrow`, a copy that has taken the token in `after`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from ..errors import RequestError

# The answer so far -> the ids that may come next, or None for all.
Following = Callable[[Sequence[int]], Iterable[int] | None]


@runtime_checkable
class Constraint(Protocol):
    """What an answer must be, from one of its places on."""

    def narrow(self, logits: Tensor) -> Tensor:
        """Return logits (V,), or log-probabilities, with -inf for every token that must not come next."""
        ...

    def after(self, token: int) -> Constraint:
        """Return what constrains the rest of the answer once it has this token; this one stays as it is."""
        ...


def only(logits: Tensor, ids: Sequence[int]) -> Tensor:
    """Return logits (V,) of the given ids, -inf elsewhere."""
    kept = torch.full_like(logits, -math.inf)
    where = torch.tensor(ids, dtype=torch.int64, device=logits.device)
    kept[where] = logits[where]
    return kept


def without(logits: Tensor, ids: Sequence[int]) -> Tensor:
    """Return logits (V,), -inf for the given ids."""
    where = torch.tensor(ids, dtype=torch.int64, device=logits.device)
    return logits.index_fill(-1, where, -math.inf) if ids else logits


@dataclass(frozen=True)
class Every:
    """All of several constraints. No parts: anything may follow."""

    parts: tuple[Constraint, ...] = ()

    def narrow(self, logits: Tensor) -> Tensor:
        for part in self.parts:
            logits = part.narrow(logits)
        return logits

    def after(self, token: int) -> Every:
        return Every(tuple(part.after(token) for part in self.parts))


@dataclass(frozen=True)
class Among:
    """Every token is one of these."""

    ids: tuple[int, ...]

    def narrow(self, logits: Tensor) -> Tensor:
        return only(logits, self.ids)

    def after(self, token: int) -> Among:
        return self


@dataclass(frozen=True)
class Choices:
    """The answer is one of the sequences of a trie, and then one of the tokens that end it."""

    trie: Mapping[int, Any]  # token -> trie of what comes after it; END -> nothing, where a sequence is over
    ends: tuple[int, ...]

    END = -1

    @classmethod
    def of(cls, sequences: Iterable[Sequence[int]], ends: Iterable[int]) -> Choices:
        """Return the constraint to one of several sequences of ids."""
        trie: dict[int, Any] = {}
        for sequence in sequences:
            node = trie
            for token in sequence:
                node = node.setdefault(token, {})
            node[cls.END] = {}
        return cls(trie, tuple(sorted(ends)))

    def narrow(self, logits: Tensor) -> Tensor:
        going_on = [token for token in self.trie if token != self.END]
        return only(logits, [*going_on, *(self.ends if self.END in self.trie else ())])

    def after(self, token: int) -> Choices:
        return replace(self, trie=self.trie.get(token, {}))


@dataclass(frozen=True)
class Banned:
    """None of these sequences is in the answer. recent: its last tokens, as many as a sequence may need."""

    sequences: tuple[tuple[int, ...], ...]
    recent: tuple[int, ...] = ()

    def narrow(self, logits: Tensor) -> Tensor:
        return without(logits, [s[-1] for s in self.sequences if _ends_with(self.recent, s[:-1])])

    def after(self, token: int) -> Banned:
        longest = max(map(len, self.sequences), default=1)
        return replace(self, recent=(*self.recent, token)[1 - longest :] if longest > 1 else ())


def _ends_with(tokens: Sequence[int], last: Sequence[int]) -> bool:
    return not last or tuple(tokens[-len(last) :]) == tuple(last)


@dataclass(frozen=True)
class NoRepeat:
    """No sequence of `size` tokens is there twice (arXiv:1705.04304, 2.5). tokens: what is there so far."""

    size: int
    tokens: tuple[int, ...] = ()

    def narrow(self, logits: Tensor) -> Tensor:
        last = self.tokens[len(self.tokens) - self.size + 1 :]
        if len(last) < self.size - 1:
            return logits
        places = range(self.size - 1, len(self.tokens))
        return without(logits, [self.tokens[i] for i in places if self.tokens[i - self.size + 1 : i] == last])

    def after(self, token: int) -> NoRepeat:
        return replace(self, tokens=(*self.tokens, token))


@dataclass(frozen=True)
class AtLeast:
    """None of these tokens is among the next `count`: an answer does not end sooner."""

    count: int
    ends: tuple[int, ...]

    def narrow(self, logits: Tensor) -> Tensor:
        return without(logits, self.ends) if self.count > 0 else logits

    def after(self, token: int) -> Constraint:
        return replace(self, count=self.count - 1) if self.count > 1 else Every()


@dataclass(frozen=True)
class First:
    """The next token is this one, whatever the model says; then another constraint begins.

    As in transformers, what is forced is certain: it takes nothing from a hypothesis's score.
    """

    token: int
    then: Constraint = Every()

    def narrow(self, logits: Tensor) -> Tensor:
        return only(torch.zeros_like(logits), (self.token,))

    def after(self, token: int) -> Constraint:
        return self.then


@dataclass(frozen=True)
class Last:
    """After `count` more tokens, the next is one of the tokens that end the answer, and that is certain."""

    count: int
    ends: tuple[int, ...]

    def narrow(self, logits: Tensor) -> Tensor:
        return logits if self.count else only(torch.zeros_like(logits), self.ends)

    def after(self, token: int) -> Last:
        return replace(self, count=self.count - 1)


@dataclass(frozen=True)
class Follows:
    """What a function says of the answer so far: the ids that may come next, or None for all."""

    function: Following
    answer: tuple[int, ...] = ()

    def narrow(self, logits: Tensor) -> Tensor:
        allowed = self.function(self.answer)
        if allowed is None:
            return logits
        ids: list[int] = []
        for i in cast(Iterable[object], allowed):  # a user's function may give anything
            if isinstance(i, bool) or not isinstance(i, int) or i < 0:
                raise RequestError(f"the constraint allows {str(i)[:80]}, which is no token id")
            ids.append(i)
        # A tokenizer may have more ids than are chosen from here.
        return only(logits, [i for i in ids if i < len(logits)])

    def after(self, token: int) -> Follows:
        return replace(self, answer=(*self.answer, token))


def impossible() -> RequestError:
    """Return the error for an answer that cannot go on."""
    return RequestError(
        "the constraints leave no token that may come next; loosen choice, json_schema, regex, grammar, "
        "bad_words, allowed_token_ids, min_tokens, no_repeat_ngram_size or the constraint that was given"
    )
