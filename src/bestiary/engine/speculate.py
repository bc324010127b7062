"""What may follow an answer, guessed so that several of its tokens can be computed in one step.

A guess is compared with what the model itself chooses there, and the draw of each token depends on the
request's seed and the token's place alone: so what comes out is what would have come out without guessing,
greedy or sampled, and a wrong guess costs time and nothing else. It is the acceptance of Leviathan et al.,
2023 (arXiv 2211.17192) with one uniform number for both models: a guess is right wherever it is what the draw
of the model gives.
"""

from __future__ import annotations

from collections.abc import Sequence as Several
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..cache import Pool
from ..errors import RequestError
from ..models import Decoder, Model, causal
from .pages import PAGE
from .runner import Runner
from .scheduler import Work
from .sequence import Sequence


class Guesser(Protocol):
    """Proposes what follows the tokens of sequences. most: tokens of a guess."""

    most: int

    def guess(self, works: Several[Work], rooms: Several[int]) -> list[tuple[int, ...]]:
        """Return what may follow the tokens of each work's sequence, as many as there is room for.

        Pages for so many are there. It sees every work, also one of a prompt whose room is 0.
        """
        ...


class PromptLookup:
    """What followed the last time that the same few tokens were there: in the prompt, or in the answer.

    Saxena, 2023, "Prompt lookup decoding" (github.com/apoorvumang/prompt-lookup-decoding). longest: how many
    last tokens are looked for; fewer where they are not found, down to two.
    """

    def __init__(self, most: int = 8, longest: int = 4) -> None:
        self.most, self._longest = most, longest

    def guess(self, works: Several[Work], rooms: Several[int]) -> list[tuple[int, ...]]:
        return [
            self._one(work.sequence.tokens, room) if room else ()
            for work, room in zip(works, rooms, strict=True)
        ]

    def _one(self, tokens: list[int], room: int) -> tuple[int, ...]:
        for size in range(min(self._longest, len(tokens) - 1), 1, -1):
            last = tokens[-size:]
            for begin in range(len(tokens) - size - 1, -1, -1):
                if tokens[begin] == last[0] and tokens[begin : begin + size] == last:
                    return tuple(tokens[begin + size : begin + size + room])
        return ()


class Draft:
    """A smaller model with the same tokens writes what may follow.

    Its keys and values lie on pages of its own with the same numbers, so that it shares what sequences share.
    context: the longest sequence that it can guess for.

    Raises RequestError for a model that is no causal decoder.
    """

    def __init__(self, model: Model, pages: int, *, context: int, most: int = 4) -> None:
        if not isinstance(model, Decoder) or model.reader is not causal:
            raise RequestError("a draft model must be a decoder that reads its prompts from left to right")
        like = next(model.parameters())
        pool = Pool.empty(model, pages, PAGE, dtype=like.dtype, device=like.device)
        self.most, self._context = most, context
        self._runner = Runner(model, pool, None, unit=1)
        self._done = WeakKeyDictionary[Sequence, int]()  # how many tokens it has keys and values of

    @torch.inference_mode()
    def guess(self, works: Several[Work], rooms: Several[int]) -> list[tuple[int, ...]]:
        sequences = [work.sequence for work in works]
        ends = [work.sequence.done + work.count for work in works]
        guesses: list[list[int]] = [[] for _ in works]
        rooms = [
            room if len(one.tokens) + room <= self._context else 0
            for one, room in zip(sequences, rooms, strict=True)
        ]
        held = [min(self._done.get(one, one.done), one.done) for one in sequences]
        tokens = [one.tokens[a:b] for one, a, b in zip(sequences, held, ends, strict=True)]
        fits = [bool(ids) and end <= self._context for ids, end in zip(tokens, ends, strict=True)]
        live = [i for i, one in enumerate(fits) if one]
        logits = self._compute(sequences, live, tokens, held, rooms)
        for i in live:
            self._done[sequences[i]] = ends[i]
        live = [i for i in live if rooms[i]]
        while live:
            for i in live:
                guesses[i].append(sequences[i].answer.guess(logits[i], len(guesses[i])))
            live = [i for i in live if len(guesses[i]) < rooms[i]]
            last = [one[-1:] for one in guesses]
            starts = [end + len(one) - 1 for end, one in zip(ends, guesses, strict=True)]
            logits = self._compute(sequences, live, last, starts, rooms)
        return [tuple(one) for one in guesses]

    def _compute(
        self,
        sequences: list[Sequence],
        live: list[int],
        tokens: list[list[int]],
        starts: list[int],
        rooms: Several[int],
    ) -> dict[int, Tensor]:
        """Compute tokens of some sequences from where they start; return the last logits, by sequence."""
        if not live:
            return {}
        wanted = [int(rooms[i] > 0) for i in live]
        logits = self._runner.forward(
            [sequences[i] for i in live], [tokens[i] for i in live], [starts[i] for i in live], wanted
        )
        return dict(zip((i for i, count in zip(live, wanted, strict=True) if count), logits, strict=True))
