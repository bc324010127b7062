"""Linear layers in 8 or 4 bits with one scale an output row: the published form of GLM-130B and ChatGLM.

THUDM/GLM-130B, quantization/layers.py and cuda/quantization.cu: symmetric, weights alone, no zero points.
"""

from __future__ import annotations

from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from .linear import PackedLinear

__all__ = ["HalfRowScaled", "RowScaled", "RowScaledEmbedding"]

# Output channels that are widened at once: what bounds the memory of a step, not what is computed.
_STRIPE = 1024
# The least float16 above zero: the scale of a row of zeros, which would otherwise divide by zero.
_LEAST = 2.0**-24


class RowScaled(nn.Module):
    """x @ W.T + bias, where W[o, i] = q[o, i] * scale[o], in float32.

    Holds the published tensors as they are: weight int8 (out, in * bits / 8), of 4 bits two to a byte, the
    even column in the high half; weight_scale float16 (out), or (out, pieces) where equal pieces of a row
    were quantised each by itself. x (..., in), result (..., out) of its type. The weight takes no gradient, x
    and bias do.
    """

    weight: Tensor
    weight_scale: Tensor

    def __init__(
        self, in_features: int, out_features: int, *, bits: int = 8, bias: bool = False, pieces: int = 1
    ) -> None:
        """Make room for a layer of 8 or 4 bits.

        Raises ConfigError for other bits, and for input channels that do not fill the pieces and their bytes.
        """
        super().__init__()
        if bits not in (4, 8):
            raise ConfigError(f"weights of {bits} bits with a scale a row are not known; 8 and 4 are")
        if in_features * bits % (8 * pieces):
            raise ConfigError(
                f"{in_features} channels of {bits} bits do not fill the bytes of {pieces} piece(s)"
            )
        self.in_features, self.out_features, self.bits, self.pieces = in_features, out_features, bits, pieces
        packed = torch.zeros(out_features, in_features * bits // 8, dtype=torch.int8)
        scales = (out_features,) if pieces == 1 else (out_features, pieces)
        self.register_buffer("weight", packed)
        self.register_buffer("weight_scale", torch.ones(scales, dtype=torch.float16))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    @classmethod
    def like(cls, linear: nn.Module, *, bits: int, pieces: int = 1) -> Self:
        """Return room for the weight of a linear layer, with its own bias. Raises as __init__ does."""
        plain = cast(nn.Linear, linear)
        made = cls(plain.in_features, plain.out_features, bits=bits, pieces=pieces)
        made.bias = plain.bias
        return made

    @classmethod
    @torch.no_grad()
    def of(cls, linear: nn.Module, *, bits: int = 8) -> Self:
        """Quantise a linear layer, plain or packed, by the published recipe. Raises as __init__ does.

        scale = largest |w| of the row / (2 ** (bits - 1) - 1) in float16; q = w / scale, rounded half to
        even.
        """
        made = cls.like(linear, bits=bits)
        weight = linear.dequantize() if isinstance(linear, PackedLinear) else linear.get_parameter("weight")
        weight, most = weight.half(), 2 ** (bits - 1) - 1
        made.weight_scale = (weight.abs().amax(1) / most).clamp_min(_LEAST)
        q = (weight / made.weight_scale[:, None]).round().clamp(-most, most).to(torch.int8)
        made.weight = q if bits == 8 else q[:, ::2] << 4 | q[:, 1::2] & 15
        return made

    def integers(self, rows: slice = slice(None)) -> Tensor:
        """Return q of some rows: int8 (rows, in)."""
        return _integers(self.weight[rows], self.bits)

    def dequantize(self, rows: slice = slice(None)) -> Tensor:
        """Return some rows of W: float32 (rows, in)."""
        q = self.integers(rows).float().unflatten(1, (self.pieces, -1))
        w: Tensor = q * self.weight_scale[rows].float().view(-1, self.pieces, 1)
        return w.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply x (..., in_features)."""
        stripes = (slice(begin, begin + _STRIPE) for begin in range(0, self.out_features, _STRIPE))
        y = torch.cat([F.linear(x, self.dequantize(rows).to(x.dtype)) for rows in stripes], -1)
        return y if self.bias is None else y + self.bias.to(x.dtype)

    def extra_repr(self) -> str:
        """Say the sizes and the bits, as nn.Linear does."""
        bias = self.bias is not None
        return f"{self.in_features}, {self.out_features}, {self.bits} bits a weight, bias={bias}"


class HalfRowScaled(RowScaled):
    """RowScaled whose W is rounded to float16: what the published CUDA kernels multiply by."""

    def dequantize(self, rows: slice = slice(None)) -> Tensor:
        """Return some rows of W: float32 (rows, in), each value one of float16."""
        return super().dequantize(rows).half().float()


class RowScaledEmbedding(nn.Module):
    """A table of vectors in 8 or 4 bits, of which only the rows asked for are made: RowScaled's W, by row.

    Holds RowScaled's tensors, and may share them with a head. ids (...) of an integer dtype, result (...,
    embedding_dim) of `dtype`.
    """

    weight: Tensor
    weight_scale: Tensor

    def __init__(self, table: RowScaled, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = table.out_features, table.in_features
        self.bits, self.dtype = table.bits, dtype
        self.register_buffer("weight", table.weight)
        self.register_buffer("weight_scale", table.weight_scale)

    def forward(self, ids: Tensor) -> Tensor:
        """Look up ids (...). IndexError, as of nn.Embedding, for an id outside of the table."""
        flat = ids.flatten()
        q = _integers(self.weight.index_select(0, flat), self.bits)
        vectors = q.float() * self.weight_scale.index_select(0, flat).float()[:, None]
        return vectors.to(self.dtype).view(*ids.shape, self.embedding_dim)

    def extra_repr(self) -> str:
        """Say the sizes and the bits, as nn.Embedding does."""
        return f"{self.num_embeddings}, {self.embedding_dim}, {self.bits} bits a weight, dtype={self.dtype}"


def _integers(packed: Tensor, bits: int) -> Tensor:
    """Return q, int8, of packed rows."""
    # Both shifts carry the sign.
    return packed if bits == 8 else torch.stack((packed >> 4, packed << 4 >> 4), -1).flatten(1)
