"""Positions that act on scores."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ALiBi:
    """slope of the head * (key position - query position): Press et al., 2021, arXiv 2108.12409."""

    slopes: tuple[float, ...]

    def __call__(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        apart = (k_pos[:, None] - q_pos[..., None]).float()  # (B, Q, K)
        return torch.tensor(self.slopes, device=q_pos.device)[:, None, None] * apart[:, None]


@dataclass(frozen=True)
class RoundedALiBi:
    """scale * slope * key position, slope and product rounded to bfloat16, as Falcon RW was trained.

    What is the same for all keys of a query changes no weight of a softmax, so that key positions alone do.
    """

    slopes: tuple[float, ...]
    scale: float

    def __call__(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        slopes = torch.tensor(self.slopes, device=k_pos.device, dtype=torch.bfloat16)
        return (slopes[:, None, None] * k_pos[:, None, None].bfloat16()).float() * self.scale


class Buckets(nn.Module):
    """A learned number for each head and each range of distances: T5, arXiv 1910.10683.

    All layers of a stack share it. Half of the ranges lie on either side. The first half of a side is one
    distance each, the others grow up to `farthest` and hold all beyond.
    """

    def __init__(self, heads: int, *, ranges: int = 32, farthest: int = 128) -> None:
        super().__init__()
        self.table, self.farthest = nn.Embedding(ranges, heads), farthest

    def forward(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        """Return what is added to the scores, (B, heads, Q, K). q_pos (B, Q), k_pos (B or 1, K)."""
        ahead = k_pos[:, None] - q_pos[..., None]  # (B, Q, K)
        return self.table(self.range_of(ahead)).movedim(-1, 1)  # type: ignore[no-any-return]

    def range_of(self, ahead: Tensor) -> Tensor:
        """Return the range that each distance lies in."""
        side = self.table.num_embeddings // 2
        return (ahead > 0) * side + self._range(ahead.abs(), side)

    def _range(self, distance: Tensor, ranges: int) -> Tensor:
        exact = ranges // 2
        # In float32 and in this order, as published: the edges of the ranges depend on its rounding.
        grown = torch.log(distance.float() / exact) / math.log(self.farthest / exact) * (ranges - exact)
        far = (exact + grown.clamp_min(0).long()).clamp_max(ranges - 1)
        return torch.where(distance < exact, distance, far)


class PastBuckets(Buckets):
    """Buckets of which all lie in the past: T5's decoder."""

    def range_of(self, ahead: Tensor) -> Tensor:
        return self._range((-ahead).clamp_min(0), self.table.num_embeddings)


def slopes(heads: int, steepest: float = 8.0) -> tuple[float, ...]:
    """Return a slope for each head: 2 ** -(steepest * i / heads), i from 1.

    Heads beyond a power of two take every second slope of twice as many (the paper's own code, and BLOOM's).
    """
    whole = 2 ** math.floor(math.log2(heads))
    first = [2 ** (-steepest * i / whole) for i in range(1, whole + 1)]
    return tuple(first + [2 ** (-steepest * i / (2 * whole)) for i in range(1, 2 * (heads - whole), 2)])
