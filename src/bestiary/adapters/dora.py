"""Low-rank adapters of a weight's direction, with its length apart: Liu et al., 2024, arXiv 2402.09353."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .lora import LoRA, dense, like


class DoRA(LoRA):
    """m * V x / |V| + bias, where V = W + alpha / rank * B A and |V| is the length of each of its rows.

    m is the length that each output channel has instead; it starts at |W|. As in the paper (4.3) and in PEFT,
    |V| takes no gradient.
    """

    def __init__(self, base: nn.Module, *, rank: int, alpha: float) -> None:
        super().__init__(base, rank=rank, alpha=alpha)
        lengths = dense(base).norm(dim=1)
        self.lora_magnitude_vector = nn.Parameter(lengths.to(self.lora_A.weight))
        self._lengths: Tensor | None = None

    @classmethod
    def of(  # type: ignore[override]  # it has lengths of its own
        cls, base: nn.Module, a: Tensor, b: Tensor, *, scale: float, dtype: torch.dtype, lengths: Tensor
    ) -> DoRA:
        """Return an adapter with an A, a B and lengths m; otherwise as LoRA.of."""
        made = super().of(base, a, b, scale=scale, dtype=dtype)
        (made.lora_magnitude_vector,) = like(made.lora_A.weight, dtype, lengths)
        return made

    def forward(self, x: Tensor) -> Tensor:
        bias = getattr(self.base, "bias", None)
        y: Tensor = super().forward(x)
        if bias is not None:  # it was added to what is scaled, and must not be
            y = y - bias.to(y.dtype)
        y = y * (self.lora_magnitude_vector / self._norm()).to(y.dtype)
        return y if bias is None else y + bias.to(y.dtype)

    def train(self, mode: bool = True) -> DoRA:
        """Begin or end training; what was remembered of the weights is forgotten."""
        self._lengths = None
        super().train(mode)
        return self

    @torch.no_grad()
    def dequantize(self) -> Tensor:
        v = super().dequantize()
        w: Tensor = v * (self.lora_magnitude_vector.float() / v.norm(dim=1))[:, None]
        return w

    @torch.no_grad()
    def _norm(self) -> Tensor:
        """Return |V| (out). Outside of training it is the same every time, and to compute it is a product."""
        weight = self.lora_B.weight
        if self._lengths is None or self.training or self._lengths.device != weight.device:
            self._lengths = super().dequantize().norm(dim=1)
        return self._lengths
