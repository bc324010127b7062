"""Answers of mixed quality: a condition in the role's words, and a weight on each token.

C-RLFT: Wang et al., 2023, arXiv 2309.11235. imoneoi/openchat, ochat/config/conversation_template.py,
data/generate_dataset.py and models/unpadded_llama.py (lm_head_with_loss).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, takewhile

import torch
from torch import Tensor

from ...errors import RequestError
from .next_token import IGNORED, log_probabilities
from .shapes import alike, scored


@dataclass(frozen=True)
class Turn:
    """What one side says: the ids of its role under its condition, of its text, and how much the text weighs.

    weight: 0 for users, 1 for answers of the better source, 0.1 for those of the worse.
    """

    role: Sequence[int]
    text: Sequence[int]
    weight: float

    def as_one(self) -> Turn:
        """Return the turn with its weight shared among its tokens and its end: long ones weigh no more."""
        return replace(self, weight=self.weight / (len(self.text) + 1))


@dataclass(frozen=True)
class Weighted:
    """Conversations end to end, each tensor (T).

    ids, positions int64: positions start again with each. labels int64: of the token that follows, IGNORED
    where it weighs nothing. weights float32: of that token. lengths int64 (conversations).
    """

    ids: Tensor
    positions: Tensor
    labels: Tensor
    weights: Tensor
    lengths: Tensor

    @property
    def totals(self) -> Tensor:
        """The sum of each conversation's weights, float32 (conversations): OpenChat's num_seqs."""
        return torch.stack([part.sum() for part in self.weights.split(self.lengths.tolist())])


def conversation(turns: Sequence[Turn], *, start: int, end: int) -> Weighted:
    """Return a conversation: the start token, and each turn's role, text and end token.

    Text and end weigh as the turn does; start and roles weigh nothing. What stands behind the last token with
    a weight is left out. Raises RequestError where no token has a weight.
    """
    ids, weights = [start], [0.0]
    for turn in turns:
        ids += [*turn.role, *turn.text, end]
        weights += [0.0] * len(turn.role) + [turn.weight] * (len(turn.text) + 1)
    count = max((place + 1 for place, weight in enumerate(weights) if weight), default=0)
    if not count:
        raise RequestError("no turn of this conversation has a weight; there is nothing to learn")
    tokens, each = torch.tensor(ids[:count]), torch.tensor(weights[:count])
    labels = torch.cat((tokens.where(each != 0, IGNORED)[1:], tokens.new_tensor([IGNORED])))
    shifted = torch.cat((each[1:], each.new_zeros(1)))
    return Weighted(tokens, torch.arange(count), labels, shifted, torch.tensor([count]))


def joined(rows: Sequence[Weighted]) -> Weighted:
    """Return conversations as one row."""
    names = ("ids", "positions", "labels", "weights", "lengths")
    return Weighted(*(torch.cat([getattr(row, name) for row in rows]) for name in names))


def weighted(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return the sum of weight times -log p(label): divide it by the sum of the weights of all devices.

    logits (*L, V), labels int64 (*L), weights (*L). Raises RequestError for shapes that do not fit.
    """
    alike(labels=labels, weights=weights)
    return -(log_probabilities(logits, labels) * weights).sum()


def weighted_accuracy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return the sum of the weights of labels that are the likeliest token, detached. Shapes as above."""
    scored(logits, labels)
    return (weights * (logits.argmax(-1) == labels)).sum().detach()


def multipack(lengths: Sequence[int], capacity: int, ranks: int) -> list[list[list[int]]]:
    """Return batches, each for every rank the indices of what it reads: at most `capacity` tokens.

    In the order given as many as fit the ranks are taken, found by bisection, and packed by first fit
    decreasing; what is left when the ranks no longer fill is left out. ochat/training_deepspeed/
    multipack_sampler.py. Raises RequestError for a length above the capacity.
    """
    if lengths and max(lengths) > capacity:
        raise RequestError(f"a text of {max(lengths)} tokens is longer than what a rank reads, {capacity}")
    batches: list[list[list[int]]] = []
    begin = 0
    while True:
        sums = accumulate(lengths[begin:])
        fits, beyond = 1, 1 + sum(1 for _ in takewhile(lambda total: total <= capacity * ranks, sums))
        while beyond - fits > 1:
            middle = (fits + beyond) // 2
            full = len(first_fit(lengths[begin : begin + middle], capacity)) > ranks
            fits, beyond = (fits, middle) if full else (middle, beyond)
        bins = first_fit(lengths[begin : begin + fits], capacity)
        if len(bins) < ranks:
            return batches
        batches.append([[begin + index for index in kept] for kept in bins])
        begin += fits


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Return bins of indices: the longest first, each in the first bin that has room for it."""
    bins: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__)[::-1]:
        place = next((i for i, left in enumerate(room) if left >= lengths[index]), len(bins))
        if place == len(bins):
            bins.append([])
            room.append(capacity)
        bins[place].append(index)
        room[place] -= lengths[index]
    return bins
