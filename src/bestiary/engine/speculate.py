"""What may follow an answer, guessed so that several of its tokens can be computed in one step.

A guess is compared with what the model itself chooses there, and the draw of each token depends on the
request's seed and the token's place alone: so what comes out is what would have come out without guessing,
greedy or sampled, and a wrong guess costs time and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence as Several
from typing import Protocol

from .sequence import Sequence


class Guesser(Protocol):
    """Proposes what follows the tokens of sequences."""

    def guess(self, sequences: Several[Sequence]) -> list[tuple[int, ...]]:
        """Return the guessed tokens of each sequence; none where there is nothing to go by."""
        ...


class PromptLookup:
    """What followed the last time that the same few tokens were there: in the prompt, or in the answer.

    Saxena, 2023, "Prompt lookup decoding" (github.com/apoorvumang/prompt-lookup-decoding). most: tokens of a
    guess. longest: how many last tokens are looked for, fewer where they are not found, down to two.
    """

    def __init__(self, most: int = 8, longest: int = 4) -> None:
        self._most, self._longest = most, longest

    def guess(self, sequences: Several[Sequence]) -> list[tuple[int, ...]]:
        return [self._one(one.tokens) if one.pending == 1 else () for one in sequences]

    def _one(self, tokens: list[int]) -> tuple[int, ...]:
        for size in range(min(self._longest, len(tokens) - 1), 1, -1):
            last = tokens[-size:]
            for begin in range(len(tokens) - size - 1, -1, -1):
                if tokens[begin] == last[0] and tokens[begin : begin + size] == last:
                    return tuple(tokens[begin + size : begin + size + self._most])
        return ()
