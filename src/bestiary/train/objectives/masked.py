"""Masked tokens: BERT, Devlin et al., 2018, arXiv 1810.04805, section 3.1.

Of 100 tokens 15 are to be said again; of those 80 of 100 stand as [MASK], 10 as any token, 10 as they are.
The draws are given, so that what is made of them is a function.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import RequestError
from .next_token import IGNORED, log_probabilities
from .shapes import alike


@dataclass(frozen=True)
class Draws:
    """What chance says of each token, all (B, T): chosen, hidden and changed bool, words int64.

    chosen: to be said again. hidden: of those, as [MASK]. changed: of the others, as the token in words.
    """

    chosen: Tensor
    hidden: Tensor
    changed: Tensor
    words: Tensor


def draw(special: Tensor, vocabulary: int, generator: torch.Generator, *, share: float = 0.15) -> Draws:
    """Return draws for tokens of which `special`, bool (B, T), are never chosen. Each token is drawn alone.

    Raises RequestError for a share outside of 0 to 1.
    """
    if not 0 <= share <= 1:
        raise RequestError(f"share = {share} should be from 0 to 1")
    chances = torch.rand(3, *special.shape, generator=generator)
    words = torch.randint(vocabulary, special.shape, generator=generator)
    # Of what is not hidden, a fifth, half is changed: 80, 10 and 10 of 100.
    return Draws((chances[0] < share) & ~special, chances[1] < 0.8, chances[2] < 0.5, words)


def masked(tokens: Tensor, draws: Draws, mask: int) -> tuple[Tensor, Tensor]:
    """Return what a model reads and the labels, both int64 (B, T). mask: the id of [MASK].

    A word that is drawn may be any of the vocabulary, the token itself too. transformers,
    data/data_collator.py, DataCollatorForLanguageModeling. Raises RequestError for draws of another shape.
    """
    alike(tokens=tokens, chosen=draws.chosen, hidden=draws.hidden, changed=draws.changed, words=draws.words)
    hidden = draws.chosen & draws.hidden
    changed = draws.chosen & ~draws.hidden & draws.changed
    read = tokens.where(~changed, draws.words).where(~hidden, mask)
    return read, tokens.where(draws.chosen, IGNORED)


def masked_lm(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean loss of the labels that are not IGNORED. logits (*L, V), labels int64 (*L).

    NaN where no label counts. Raises RequestError for shapes that do not fit.
    """
    return -log_probabilities(logits, labels).sum() / (labels != IGNORED).sum()


def words(*, starts: Sequence[bool], special: Sequence[bool]) -> list[list[int]]:
    """Return the places of each word's pieces. starts: whether a piece begins a word.

    special: tokens that are in no word, [CLS] and [SEP].
    """
    found: list[list[int]] = []
    for place, (start, apart) in enumerate(zip(starts, special, strict=True)):
        if apart:
            continue
        if start or not found:
            found.append([])
        found[-1].append(place)
    return found


@dataclass(frozen=True)
class WordMasks:
    """Chooses words until a share of a sequence is chosen; each piece of one is then hidden by itself.

    share: of the sequence's tokens, [CLS] and [SEP] among them; most: of them at most. mask: id of [MASK].
    google-research/bert, create_pretraining_data.py, create_masked_lm_predictions.
    """

    vocabulary: int
    mask: int
    share: float = 0.15
    most: int = 20

    def __call__(
        self, tokens: Sequence[int], words: Sequence[Sequence[int]], rng: random.Random
    ) -> tuple[list[int], list[int]]:
        """Return what a model reads and the places that are to be said again, in order.

        words: the places of each candidate: a word's pieces, or single pieces. A word that would pass the
        share is left out, so that no word is half hidden.
        """
        count = min(self.most, max(1, round(len(tokens) * self.share)))
        order = [list(word) for word in words]
        rng.shuffle(order)
        read, places = list(tokens), list[int]()
        for word in order:
            if len(places) + len(word) <= count:
                for place in word:
                    read[place] = self._said(tokens[place], rng)
                places += word
        return read, sorted(places)

    def _said(self, token: int, rng: random.Random) -> int:
        if rng.random() < 0.8:
            return self.mask
        return token if rng.random() < 0.5 else rng.randint(0, self.vocabulary - 1)
