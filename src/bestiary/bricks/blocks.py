"""Blocks, one class an equation. x (*L, width) -> (*L, width)."""

from __future__ import annotations

from torch import Tensor, nn

from ..context import Context


class PreNorm(nn.Module):
    """x = x + attn(norm x); x + mlp(norm x)."""

    def __init__(self, attn_norm: nn.Module, attn: nn.Module, mlp_norm: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.attn_norm, self.attn, self.mlp_norm, self.mlp = attn_norm, attn, mlp_norm, mlp

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        x = x + self.attn(self.attn_norm(x), ctx)
        return x + self.mlp(self.mlp_norm(x))  # type: ignore[no-any-return]
