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


class ScaledPreNorm(PreNorm):
    """x = x + scale * attn(norm x); x + scale * mlp(norm x): Granite 3."""

    def __init__(
        self, attn_norm: nn.Module, attn: nn.Module, mlp_norm: nn.Module, mlp: nn.Module, *, scale: float
    ) -> None:
        super().__init__(attn_norm, attn, mlp_norm, mlp)
        self.scale = scale

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        x = x + self.scale * self.attn(self.attn_norm(x), ctx)
        return x + self.scale * self.mlp(self.mlp_norm(x))  # type: ignore[no-any-return]


class PostNorm(PreNorm):
    """x = norm(x + attn(x)); norm(x + mlp(x)): Vaswani et al., 2017, arXiv 1706.03762."""

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        x = self.attn_norm(x + self.attn(x, ctx))
        return self.mlp_norm(x + self.mlp(x))  # type: ignore[no-any-return]


class InnerNorm(PreNorm):
    """x = x + norm(attn(x)); x + norm(mlp(x)): OLMo 2, arXiv 2501.00656."""

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        x = x + self.attn_norm(self.attn(x, ctx))
        return x + self.mlp_norm(self.mlp(x))  # type: ignore[no-any-return]


class Parallel(PreNorm):
    """x + attn(norm x) + mlp(norm x), a norm for each: GPT-NeoX-20B, arXiv 2204.06745."""

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        return x + self.attn(self.attn_norm(x), ctx) + self.mlp(self.mlp_norm(x))  # type: ignore[no-any-return]


class SharedParallel(nn.Module):
    """y = norm x; x + attn(y) + mlp(y): GPT-J, PaLM, arXiv 2204.02311."""

    def __init__(self, attn_norm: nn.Module, attn: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.attn_norm, self.attn, self.mlp = attn_norm, attn, mlp

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        y = self.attn_norm(x)
        return x + self.attn(y, ctx) + self.mlp(y)  # type: ignore[no-any-return]


class Sandwich(nn.Module):
    """x = x + norm(attn(norm x)); x + norm(mlp(norm x)): Ding et al., 2021, arXiv 2105.13290."""

    def __init__(
        self,
        attn_norm: nn.Module,
        attn: nn.Module,
        attn_out_norm: nn.Module,
        mlp_norm: nn.Module,
        mlp: nn.Module,
        mlp_out_norm: nn.Module,
    ) -> None:
        super().__init__()
        self.attn_norm, self.attn, self.attn_out_norm = attn_norm, attn, attn_out_norm
        self.mlp_norm, self.mlp, self.mlp_out_norm = mlp_norm, mlp, mlp_out_norm

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        x = x + self.attn_out_norm(self.attn(self.attn_norm(x), ctx))
        return x + self.mlp_out_norm(self.mlp(self.mlp_norm(x)))  # type: ignore[no-any-return]


class DeepNorm(PreNorm):
    """y = norm x; x = alpha y + attn(y); z = norm x; alpha z + mlp(z).

    DeepNet, arXiv 2203.00555, as GLM-130B has it (arXiv 2210.02414): the norm of what DeepNet adds up stands
    at the beginning of the next half.
    """

    def __init__(
        self, attn_norm: nn.Module, attn: nn.Module, mlp_norm: nn.Module, mlp: nn.Module, alpha: float
    ) -> None:
        super().__init__(attn_norm, attn, mlp_norm, mlp)
        self.alpha = alpha

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        y = self.attn_norm(x)
        z = self.mlp_norm(self.alpha * y + self.attn(y, ctx))
        return self.alpha * z + self.mlp(z)  # type: ignore[no-any-return]


class DeepPostNorm(DeepNorm):
    """x = norm(alpha x + attn(x)); norm(alpha x + mlp(x)): DeepNet, arXiv 2203.00555, as first written."""

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        x = self.attn_norm(self.alpha * x + self.attn(x, ctx))
        return self.mlp_norm(self.alpha * x + self.mlp(x))  # type: ignore[no-any-return]


class CrossPreNorm(nn.Module):
    """x = x + attn(norm x); x = x + cross(norm x); x + mlp(norm x): T5, arXiv 1910.10683."""

    def __init__(
        self,
        attn_norm: nn.Module,
        attn: nn.Module,
        cross_norm: nn.Module,
        cross: nn.Module,
        mlp_norm: nn.Module,
        mlp: nn.Module,
    ) -> None:
        super().__init__()
        self.attn_norm, self.attn, self.cross_norm, self.cross = attn_norm, attn, cross_norm, cross
        self.mlp_norm, self.mlp = mlp_norm, mlp

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        x = x + self.attn(self.attn_norm(x), ctx)
        x = x + self.cross(self.cross_norm(x), ctx)
        return x + self.mlp(self.mlp_norm(x))  # type: ignore[no-any-return]


class CrossPostNorm(CrossPreNorm):
    """x = norm(x + attn(x)); x = norm(x + cross(x)); norm(x + mlp(x)): Vaswani et al., 2017."""

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        x = self.attn_norm(x + self.attn(x, ctx))
        x = self.cross_norm(x + self.cross(x, ctx))
        return self.mlp_norm(x + self.mlp(x))  # type: ignore[no-any-return]
