"""Positions that act on scores."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


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


def slopes(heads: int, steepest: float = 8.0) -> tuple[float, ...]:
    """Return a slope for each head: 2 ** -(steepest * i / heads), i from 1.

    Heads beyond a power of two take every second slope of twice as many (the paper's own code, and BLOOM's).
    """
    whole = 2 ** math.floor(math.log2(heads))
    first = [2 ** (-steepest * i / whole) for i in range(1, whole + 1)]
    return tuple(first + [2 ** (-steepest * i / (2 * whole)) for i in range(1, 2 * (heads - whole), 2)])
