"""Norms that torch lacks. Those of queries and keys take x (*L, heads, head_dim)."""

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


class WholeNorm(nn.RMSNorm):
    """RMSNorm over all heads together: OLMo 2's of queries and keys, arXiv 2501.00656."""

    def __init__(self, heads: int, dim: int, eps: float) -> None:
        super().__init__(heads * dim, eps)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(-2)).view_as(x)


class HeadNorm(nn.Module):
    """LayerNorm without bias over each head, which has its own weights: Command R+ and Stable LM 2 12B."""

    def __init__(self, heads: int, dim: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(heads * dim)), eps

    def forward(self, x: Tensor) -> Tensor:
        normed = nn.functional.layer_norm(x, x.shape[-1:], eps=self.eps)
        return normed * self.weight.view(x.shape[-2:])


class SampleNorm(nn.Module):
    """weight * (x - mean) / (deviation + eps) + bias: the Annotated Transformer's LayerNorm.

    The deviation is that of a sample, over width - 1, and eps is added to it, not to the variance.
    x (*L, width).
    """

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return self.weight * centred / (x.std(-1, keepdim=True) + self.eps) + self.bias
