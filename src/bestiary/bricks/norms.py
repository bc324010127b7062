"""Norms that torch lacks."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class OffsetRMSNorm(nn.Module):
    """x / rms(x) * (1 + weight), in float32: Gemma's (gemma_pytorch, model.py). x (*L, width)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.zeros(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        normed = nn.functional.rms_norm(x.float(), x.shape[-1:], eps=self.eps)
        return (normed * (1 + self.weight.float())).to(x.dtype)
