"""Blanks that are filled one after another: GLM, Du et al., 2021, arXiv 2103.10360, section 2.1.

A text with a mask for each span that was taken out, then the spans, each behind a start token. The text sees
all of itself, a span the text and what stands before. THUDM/GLM, blocklm_utils.py, ConstructBlockStrategy.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...errors import RequestError
from .next_token import IGNORED

Span = tuple[int, int]


@dataclass(frozen=True)
class Marks:
    """Ids of the tokens around blanks: the mask in the text, and what begins and ends its filling."""

    mask: int
    start: int
    end: int


@dataclass(frozen=True)
class Blanked:
    """What a model reads, and what it should say.

    ids and labels int64 (*B, T): the label of each token is what follows it; IGNORED in the text. positions
    int64 (*B, 2, T): in the text, where a filling stands as its mask does, and in the filling, from 1 at its
    start; 0 in the text. text int64 (*B): how many tokens the text holds.
    """

    ids: Tensor
    labels: Tensor
    positions: Tensor
    text: Tensor

    @property
    def seen(self) -> Tensor:
        """Who may see whom, bool (*B, T, T), queries first: all see the text, and each what is before it."""
        places = torch.arange(self.ids.shape[-1], device=self.ids.device)
        return (places[:, None] >= places) | (places < self.text[..., None, None])


def blanked(tokens: Tensor, spans: Sequence[Span], marks: Marks) -> Blanked:
    """Take spans out of tokens, int64 (T). They are filled in the order that they are given in.

    Raises RequestError for spans that are empty, overlap, or lie outside of the text.
    """
    ordered = sorted(spans)
    _check(ordered, len(tokens))
    ids, places, sites, last = [], [], {}, 0
    own = torch.ones_like(tokens)
    for start, end in ordered:
        own[start + 1 : end] = 0
    standing = own.cumsum(0) - 1  # each span counts as one token
    for start, end in ordered:
        ids += [tokens[last:start], tokens.new_tensor([marks.mask])]
        places += [standing[last:start], standing[start : start + 1]]
        sites[start, end] = standing[start]
        last = end
    ids, places = [*ids, tokens[last:]], [*places, standing[last:]]
    text = sum(map(len, ids))
    labels, within = [tokens.new_full((text,), IGNORED)], [tokens.new_zeros(text)]
    for start, end in spans:
        filling, count = tokens[start:end], end - start + 1
        ids += [tokens.new_tensor([marks.start]), filling]
        labels += [filling, tokens.new_tensor([marks.end])]
        places.append(sites[start, end].expand(count))
        within.append(torch.arange(1, count + 1, device=tokens.device))
    positions = torch.stack((torch.cat(places), torch.cat(within)))
    return Blanked(torch.cat(ids), torch.cat(labels), positions, tokens.new_tensor(text))


def continued(tokens: Tensor, division: int, marks: Marks) -> Blanked:
    """Take out all from `division` on: the last token is said, and none ends it. tokens int64 (T).

    Here the places in the filling count from 0 at the mask, as GLM's own do. Raises RequestError for a
    division that leaves nothing to say.
    """
    if not 0 <= division < len(tokens):
        raise RequestError(f"a division at {division} is not within {len(tokens)} tokens")
    text, filling = tokens[:division], tokens[division:]
    ids = torch.cat((text, tokens.new_tensor([marks.mask, marks.start]), filling[:-1]))
    labels = torch.cat((tokens.new_full((division + 1,), IGNORED), filling))
    places = torch.arange(len(ids), device=tokens.device)
    positions = torch.stack((places.clamp_max(division), (places - division).clamp_min(0)))
    return Blanked(ids, labels, positions, tokens.new_tensor(division + 1))


def without_order(example: Blanked) -> Blanked:
    """Return an example whose fillings have one place for all their tokens: block_position_encoding off."""
    within = example.positions[..., 1:, :].clamp_max(1)
    return replace(example, positions=torch.cat((example.positions[..., :1, :], within), -2))


def batch(examples: Sequence[Blanked]) -> Blanked:
    """Return examples (T) as one batch (B, T), padded on the right with id 0 at position 0.

    Raises RequestError for no example.
    """
    if not examples:
        raise RequestError("a batch is made of one example or more")
    longest = max(len(example.ids) for example in examples)

    def padded(tensor: Tensor, value: int) -> Tensor:
        return torch.nn.functional.pad(tensor, (0, longest - tensor.shape[-1]), value=value)

    return Blanked(
        torch.stack([padded(example.ids, 0) for example in examples]),
        torch.stack([padded(example.labels, IGNORED) for example in examples]),
        torch.stack([padded(example.positions, 0) for example in examples]),
        torch.stack([example.text for example in examples]),
    )


def draw_blanks(
    length: int, rng: random.Random, *, share: float = 0.15, mean: float = 3.0, most: int = 40
) -> list[Span]:
    """Draw spans of a text [CLS] ... [EOS] of `length` tokens, as Poisson's law has their lengths.

    They come in the order that they are filled in. Fewer than the share where they would not fit apart.
    """
    weights = [math.exp(-mean) * mean**n / math.factorial(n) for n in range(1, most)]
    lengths: list[int] = []
    while sum(lengths) < int(share * length):
        lengths += rng.choices(range(1, most), weights=weights)
    for _ in range(2):  # GLM shuffles twice, and its draws are made again here
        rng.shuffle(lengths)
    return draw_places(_fitted(lengths, length - 2), length, rng)


def draw_sentences(
    tokens: Sequence[int], ends: Collection[int], end: int, rng: random.Random, *, share: float = 0.15
) -> list[Span]:
    """Draw sentences of a text [CLS] ... until they are a share of it.

    ends: tokens that a sentence ends with; end: [EOS], which is in none. They come in the order that they are
    filled in.
    """
    sentences, first = [], 1
    for place, token in enumerate(tokens):
        if token in ends:
            sentences.append((first, place + 1))
        if token in ends or token == end:
            first = place + 1
    if first < len(tokens):
        sentences.append((first, len(tokens)))
    rng.shuffle(sentences)
    chosen: list[Span] = []
    for span in sentences:
        chosen.append(span)
        if sum(b - a for a, b in chosen) >= int(share * len(tokens)):
            break
    rng.shuffle(chosen)
    return chosen


def draw_places(lengths: Sequence[int], length: int, rng: random.Random) -> list[Span]:
    """Draw where spans stand in a text [CLS] ... [EOS] of `length` tokens, one token apart at least.

    In the order that they are filled in. Raises RequestError for more than the text holds.
    """
    free = length - 2 - sum(lengths) - len(lengths) + 1
    if free < 0:
        raise RequestError(f"spans of {list(lengths)} tokens do not stand apart in a text of {length}")
    places = sorted(rng.randrange(free + 1) for _ in lengths)
    spans, offset = [], 1
    for place, length in zip(places, lengths, strict=True):
        spans.append((offset + place, offset + place + length))
        offset += length + 1
    rng.shuffle(spans)
    return spans


def _fitted(lengths: Sequence[int], room: int) -> list[int]:
    """Return as many of the first lengths as stand apart in a room."""
    kept: list[int] = []
    for length in lengths:
        if sum(kept) + length + len(kept) > room:
            break
        kept.append(length)
    return kept


def _check(spans: Sequence[Span], length: int) -> None:
    last = 0
    for start, end in spans:
        if not last <= start < end <= length:
            raise RequestError(
                f"the span from {start} to {end} is empty, overlaps another, or is not within {length} tokens"
            )
        last = end
