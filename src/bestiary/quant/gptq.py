"""Linear layers packed by GPTQ (arXiv 2210.17323), in the layout of GPTQ-for-LLaMa and AutoGPTQ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError

__all__ = ["GPTQLinear", "unpack"]

# Output channels that are unpacked at once: enough to keep a core busy, few enough to stay in its cache.
_STRIPE = 256


def unpack(words: Tensor, bits: int) -> Tensor:
    """Return the fields of `bits` bits that fill int32 words (W, N), from the lowest: (32 W / bits, N).

    Those of three bits may begin in one word and end in the next.
    """
    mask = (1 << bits) - 1
    if 32 % bits == 0:
        begin = torch.arange(0, 32, bits, dtype=torch.int32, device=words.device)[:, None]
        return ((words[:, None] >> begin) & mask).flatten(0, 1)
    begin = torch.arange(0, 32 * len(words), bits, device=words.device)
    words = words.long() & 0xFFFFFFFF  # without a sign
    first, last, shift = begin // 32, (begin + bits - 1) // 32, (begin % 32)[:, None]
    return (words[first] >> shift | words[last] << 32 - shift) & mask


class GPTQLinear(nn.Module):
    """x @ W.T + bias, where W[o, i] = scales[g, o] * (q[i, o] - zero[g, o]) and g = g_idx[i].

    Holds the published tensors as they are: qweight int32 (in * bits / 32, out), fields q along the input
    channels; qzeros int32 (groups, out * bits / 32), fields `zero - offset` along the output channels; scales
    float16 (groups, out); g_idx int32 (in): the group of each input channel, in any order ("act-order").
    W is float32 before it is rounded to the type of x. x (..., in), result (..., out) of its type.
    """

    # Where each published tensor has its output channels; None: all of them share it.
    output_axes: ClassVar[Mapping[str, int | None]] = {"qweight": 1, "qzeros": 1, "scales": 1, "g_idx": None}

    qweight: Tensor
    qzeros: Tensor
    scales: Tensor
    g_idx: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bits: int,
        group: int | None = None,
        bias: bool = False,
        offset: int = 1,
    ) -> None:
        """Make room for a layer of `bits` bits (2, 3, 4 or 8).

        group: input channels that share a scale and a zero; None: all. offset: what a stored zero lacks, 1
        but in files of the format "gptq_v2". Raises ConfigError for sizes that do not fill words of 32 bits.
        """
        super().__init__()
        if in_features * bits % 32 or out_features * bits % 32:
            raise ConfigError(
                f"a layer of {in_features} to {out_features} channels does not fill whole words of 32 bits "
                f"with {bits} bits a weight"
            )
        self.in_features, self.out_features, self.bits, self.offset = in_features, out_features, bits, offset
        group, words = group or in_features, partial(torch.zeros, dtype=torch.int32)
        groups = -(-in_features // group)
        self.register_buffer("qweight", words(in_features * bits // 32, out_features))
        self.register_buffer("qzeros", words(groups, out_features * bits // 32))
        self.register_buffer("scales", torch.zeros(groups, out_features, dtype=torch.float16))
        self.register_buffer("g_idx", torch.arange(in_features, dtype=torch.int32) // group)
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    @classmethod
    def of(cls, linear: nn.Module, *, bits: int, group: int | None) -> Self:
        """Return room for what replaces a linear layer."""
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"{type(linear).__name__} is no nn.Linear")
        sizes = linear.in_features, linear.out_features
        with torch.device(linear.weight.device):
            return cls(*sizes, bits=bits, group=group, bias=linear.bias is not None)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.cat([F.linear(x, stripe.to(x.dtype)) for stripe in self._stripes()], -1)
        return out if self.bias is None else out + self.bias

    def dequantize(self) -> Tensor:
        """Return W, float32 (out, in)."""
        return torch.cat(list(self._stripes()))

    def extra_repr(self) -> str:
        """Say the sizes and the bits, as nn.Linear does."""
        return f"{self.in_features}, {self.out_features}, bits={self.bits}, bias={self.bias is not None}"

    def _stripes(self) -> Iterator[Tensor]:
        """Return W a few output channels at a time, (_STRIPE or less, in)."""
        zeros = (unpack(self.qzeros.mT, self.bits).mT + self.offset).float()  # (groups, out)
        pieces = (tensor.split(_STRIPE, 1) for tensor in (self.qweight, zeros, self.scales.float()))
        for words, zero, scale in zip(*pieces, strict=True):
            steps = unpack(words, self.bits) - zero[self.g_idx]  # whole numbers, exact in float32
            yield (steps * scale[self.g_idx]).mT
