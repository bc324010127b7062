"""Spans that a sentinel stands for: T5, Raffel et al., 2019, arXiv 1910.10683, section 3.1.4.

google-research/text-to-text-transfer-transformer, t5/data/preprocessors.py. Which tokens are noise is given:
TensorFlow's draws cannot be made again elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import RequestError
from .shapes import alike


def corrupted(tokens: Tensor, noise: Tensor, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Return the source and what answers it, int64: in the one a sentinel for each span of noise, in the
    other for each span of the rest.

    tokens int64 (T), noise bool (T). Sentinels count down from vocabulary - 1. Raises RequestError for shapes
    that differ.
    """
    alike(tokens=tokens, noise=noise)
    return _with_sentinels(tokens, noise, vocabulary), _with_sentinels(tokens, ~noise, vocabulary)


def _with_sentinels(tokens: Tensor, hidden: Tensor, vocabulary: int) -> Tensor:
    before = torch.cat((hidden.new_zeros(1), hidden[:-1]))
    first = hidden & ~before
    said = tokens.where(~first, vocabulary - first.cumsum(0))
    return said[first | ~hidden]


def shifted_right(answer: Tensor, start: int = 0) -> Tensor:
    """Return what a decoder reads to say an answer (*L, T): the start token, and all but its last."""
    return torch.cat((torch.full_like(answer[..., :1], start), answer[..., :-1]), -1)


@dataclass(frozen=True)
class SpanNoise:
    """How much of a text is noise, and in spans of what mean length. T5's own: 0.15 and 3."""

    density: float = 0.15
    mean: float = 3.0

    def __post_init__(self) -> None:
        if not (0 < self.density < 1 and self.mean >= 1):
            raise RequestError(
                f"a density of {self.density} in spans of {self.mean}: the one is between 0 and 1, the other "
                "1 or more"
            )

    def counts(self, length: int) -> tuple[int, int]:
        """Return how many of `length` tokens are noise, and in how many spans; 1 at least of either.

        Raises RequestError for a text of less than two tokens, of which none would be left.
        """
        if length < 2:
            raise RequestError(f"a text of {length} token has no span to spare; 2 is the least")
        noise = min(max(round(length * self.density), 1), length - 1)
        return noise, max(round(noise / self.mean), 1)

    def draw(self, length: int, generator: torch.Generator) -> Tensor:
        """Return which tokens are noise, bool (length): rest and noise in turn, the rest first."""
        noise, spans = self.counts(length)
        lengths = torch.stack((_cut(length - noise, spans, generator), _cut(noise, spans, generator)), 1)
        return (torch.arange(2 * spans) % 2).bool().repeat_interleave(lengths.flatten())

    def fill(self, source: int) -> tuple[int, int]:
        """Return how many tokens make a source of at most `source`, its end token in it, and their answer's
        length: random_spans_helper.
        """
        tokens = source
        while self._made(tokens + 1)[0] <= source:
            tokens += 1
        answer = self._made(tokens)[1]
        if self.density == 0.5 and answer > source:  # for models that read both as one text
            return tokens - 1, answer - 1
        return tokens, answer

    def _made(self, tokens: int) -> tuple[int, int]:
        noise = round(tokens * self.density)
        spans = round(noise / self.mean)
        return tokens - noise + spans + 1, noise + spans + 1


def _cut(count: int, parts: int, generator: torch.Generator) -> Tensor:
    """Return the lengths of `parts` parts of `count` things, 1 at least each, all ways alike likely."""
    cuts = torch.randperm(count - 1, generator=generator)[: parts - 1].sort().values + 1
    return torch.diff(torch.cat((cuts.new_zeros(1), cuts, cuts.new_full((1,), count))))
