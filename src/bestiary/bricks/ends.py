"""What stands between tokens and blocks, and between blocks and logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..context import Context


class Scale(nn.Module):
    """x times a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class RoundedScale(Scale):
    """x times a constant that is first rounded to x's type, as in JAX: in bfloat16, Gemma's 55.43 is 55.5."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.tensor(self.factor, dtype=x.dtype, device=x.device)


class Cap(nn.Module):
    """limit * tanh(x / limit): logits that stay within a limit (Gemma 2, arXiv 2408.00118)."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        return self.limit * torch.tanh(x / self.limit)


class Unplaced(nn.Module):
    """The stream as it is: positions enter elsewhere, or nowhere."""

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        return x


class Learned(nn.Module):
    """x plus a learned vector for each position. offset: the row of position 0 (OPT leaves two free)."""

    def __init__(self, positions: int, width: int, *, offset: int = 0) -> None:
        super().__init__()
        self.table, self.offset = nn.Embedding(positions + offset, width), offset

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        return x + self.table(ctx.positions + self.offset)  # type: ignore[no-any-return]


class NormedHead(nn.Linear):
    """Logits by the direction of each row of the weight alone: Baichuan 2, arXiv 2309.10305."""

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__(width, vocabulary, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, F.normalize(self.weight))
