"""Positions that are added to the stream and learned by no one: sines and cosines, one class a table.

They are computed for the tokens of a step and hold no tensors. Three tables have been published under one
name, so that the same weights on another of them write nonsense.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..context import Context


class Sinusoids(nn.Module):
    """norm(x + table(position)), sine and cosine of each angle in turn: Vaswani et al., 2017, section 3.5.

    Angle i is position / 10000 ** (2i / width). offset: the row of position 0. norm: none unless given.
    x (*L, width) -> (*L, width).
    """

    def __init__(self, *, offset: int = 0, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.offset, self.norm = offset, norm or nn.Identity()

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        table = self.table(ctx.positions + self.offset, x.shape[-1])
        return self.norm(x + table.to(x.dtype))  # type: ignore[no-any-return]

    def table(self, positions: Tensor, width: int) -> Tensor:
        """Return the rows of positions (*L), float (*L, width)."""
        rates = torch.exp(torch.arange(0, width, 2, device=positions.device) * -(math.log(10_000.0) / width))
        angles = positions[..., None] * rates
        return torch.stack((angles.sin(), angles.cos()), -1).flatten(-2)[..., :width]


class TimingSignal(Sinusoids):
    """All sines, then all cosines, the slowest angle turning at exactly 1 / 10000: tensor2tensor, fairseq.

    Angle i is position / 10000 ** (i / (width / 2 - 1)); an odd width ends in 0 (common_attention.py,
    get_timing_signal_1d; fairseq, sinusoidal_positional_embedding.py).
    """

    def table(self, positions: Tensor, width: int) -> Tensor:
        half = width // 2
        step = math.log(10_000.0) / max(half - 1, 1)
        rates = torch.exp(torch.arange(half, device=positions.device).float() * -step)
        angles = positions[..., None] * rates
        return nn.functional.pad(torch.cat((angles.sin(), angles.cos()), -1), (0, width % 2))


class SplitSinusoids(Sinusoids):
    """The paper's angles, all sines before all cosines: Marian, Pegasus.

    In float64 first, as published (marian-dev, transformers): float32 is 1e-5 off at position 500.
    """

    def table(self, positions: Tensor, width: int) -> Tensor:
        channels = torch.arange(0, width, 2, device=positions.device, dtype=torch.float64)
        angles = positions[..., None] / 10_000.0 ** (channels / width)
        return torch.cat((angles.sin(), angles.cos()[..., : width // 2]), -1).float()
