"""Linear layers whose weight is made from what is packed a few output channels at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["STRIPE", "Striped"]

# Output channels that are widened at once: enough to keep a core busy, few enough to stay in its cache.
STRIPE = 256


class Striped(nn.Module):
    """x @ W.T + bias, for a W that `stripes` yields.

    x (..., in_features), result (..., out_features) of its type. W is float32 before it is rounded to that
    type. It takes no gradient, x and bias do.
    """

    # As tensors.Packed says.
    output_axes: ClassVar[Mapping[str, int | None]] = {}
    repeats: Mapping[str, int] = {}

    def __init__(self, in_features: int, out_features: int, *, bits: int, bias: bool = False) -> None:
        super().__init__()
        self.in_features, self.out_features, self.bits = in_features, out_features, bits
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    def stripes(self) -> Iterator[Tensor]:
        """Yield W, float32, STRIPE output channels or fewer at a time: (channels, in_features)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Multiply x (..., in_features)."""
        out = torch.cat([F.linear(x, stripe.to(x.dtype)) for stripe in self.stripes()], -1)
        return out if self.bias is None else out + self.bias.to(x.dtype)

    def dequantize(self) -> Tensor:
        """Return W, float32 (out_features, in_features)."""
        return torch.cat(list(self.stripes()))

    def extra_repr(self) -> str:
        """Say the sizes and the bits, as nn.Linear does."""
        return f"{self.in_features}, {self.out_features}, bits={self.bits}, bias={self.bias is not None}"
