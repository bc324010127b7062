"""Low-rank adapters: Hu et al., 2021, arXiv 2106.09685."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn


class _Linear(Protocol):
    in_features: int
    out_features: int

    def __call__(self, x: Tensor) -> Tensor: ...


class LoRA(nn.Module):
    """base(x) + alpha / rank * B A x, over anything that maps in_features to out_features.

    Over a quantised base it is QLoRA (arXiv 2305.14314): the base's weight takes no gradient, A and B do.
    x (*L, in_features) -> (*L, out_features). A starts random and B at zero, so that a new adapter changes
    nothing. The names lora_A and lora_B are those of PEFT's files.
    """

    def __init__(self, base: nn.Module, *, rank: int, alpha: float) -> None:
        super().__init__()
        linear: _Linear = base  # type: ignore[assignment]  # nn.Linear, PackedLinear, RowScaled, LoRA, ...
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.base, self.scale = base.requires_grad_(False), alpha / rank
        like = next((p for p in base.parameters() if p.is_floating_point()), torch.empty(0))
        kind = {"dtype": like.dtype, "device": like.device}
        self.lora_A = nn.Linear(self.in_features, rank, bias=False, **kind)
        self.lora_B = nn.Linear(rank, self.out_features, bias=False, **kind)
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * self.lora_B(self.lora_A(x))  # type: ignore[no-any-return]
