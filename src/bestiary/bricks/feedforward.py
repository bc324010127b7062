"""Feed-forward layers. x (*L, width) -> (*L, width)."""

from __future__ import annotations

from torch import Tensor, nn

from ..config import Activation


class MLP(nn.Module):
    """down(act(up x)): Vaswani et al., 2017."""

    def __init__(self, width: int, hidden: int, act: Activation, *, bias: bool = True) -> None:
        super().__init__()
        self.up, self.down, self.act = nn.Linear(width, hidden, bias), nn.Linear(hidden, width, bias), act

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.up(x)))  # type: ignore[no-any-return]


class GatedMLP(nn.Module):
    """down(act(gate x) * up x): Shazeer, 2020, arXiv 2002.05202."""

    def __init__(self, width: int, hidden: int, act: Activation, *, bias: bool = False) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(width, hidden, bias), nn.Linear(width, hidden, bias)
        self.down, self.act = nn.Linear(hidden, width, bias), act

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.gate(x)) * self.up(x))  # type: ignore[no-any-return]
