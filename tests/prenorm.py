"""Small random decoders of the blocks that the C kernels know."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import nn

from bestiary.bricks import Attention, GatedMLP, Heads, Position, PreNorm, Rotary
from bestiary.context import Score
from bestiary.formats import get
from bestiary.models import Decoder
from bestiary.quant.linear import PackedLinear
from tests.packed import packed

VOCAB = 50
LINEARS = r"layers\..*\.(q|k|v|o|gate|up|down)"


def decoder(
    *,
    heads: Heads | None = None,
    width: int = 64,
    hidden: int = 96,
    layers: int = 3,
    position: Position | None = None,
    score: Score | None = None,
    bias: bool = False,
) -> Decoder:
    """A small random decoder; every parameter is away from its usual start, norms and biases too."""
    heads = heads or Heads(4, 2, 16)
    position = position or Rotary(heads.dim)

    def block() -> PreNorm:
        attn = Attention(width, heads, score=score, position=position, bias=bias, out_bias=bias)
        mlp = GatedMLP(width, hidden, F.silu, bias=bias)
        return PreNorm(nn.RMSNorm(width, 1e-5), attn, nn.RMSNorm(width, 1e-6), mlp)

    head = nn.Linear(width, VOCAB, bias=False)
    model = Decoder(
        nn.Embedding(VOCAB, width), [block() for _ in range(layers)], nn.RMSNorm(width, 1e-5), head
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5 if parameter.ndim == 2 else 0.7)
    return model.eval()


def pack(name: str) -> Callable[[nn.Module], nn.Module]:
    """How to make a Linear into a random packed one of like size."""

    def make(linear: nn.Module) -> nn.Module:
        assert isinstance(linear, nn.Linear)
        rows, columns, fmt = linear.out_features, linear.in_features, get(name)
        new = PackedLinear(columns, rows, fmt, bias=linear.bias is not None)
        new.weight = packed(fmt, rows, columns, seed=rows, std=columns**-0.5)
        new.bias = linear.bias
        return new

    return make
