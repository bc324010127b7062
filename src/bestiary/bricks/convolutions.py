"""Convolutions over the last tokens, and attention that looks through them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..context import Context, Slot
from .attention import Attention, Heads, Remembers


class Convolution(Remembers):
    """before(x of the token before) + now(x): causal, over two tokens. x (*L, width) -> (*L, out).

    There is nothing before the first token: what `before` would give there is zero.
    """

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.before, self.now = nn.Linear(width, out, bias=False), nn.Linear(width, out)
        self.slot = Slot(-1, 1, width, values=0)

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        return self.before(ctx.previous(self.slot, x)) + self.now(x)  # type: ignore[no-any-return]


class LocalFilter(nn.Module):
    """norm(x + second(first(x))), two convolutions: Yuan 2.0, arXiv 2311.15786. x (*L, width) -> (*L, width).

    inner: channels between the two.
    """

    def __init__(self, width: int, inner: int, norm: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.norm = Convolution(width, inner), Convolution(inner, width), norm

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        return self.norm(x + self.second(self.first(x, ctx), ctx))  # type: ignore[no-any-return]


class FilteredAttention(Attention):
    """Attention whose queries and keys read a filtered stream: values alone read the stream itself.

    local: (x, ctx) -> x, both (*L, width). Yuan 2.0's localized filtering-based attention, arXiv 2311.15786.
    """

    def __init__(self, width: int, heads: Heads, *, local: nn.Module, **kind: Any) -> None:
        super().__init__(width, heads, **kind)
        self.local = local

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        y = self.local(x, ctx)
        q, k, v = (
            project(of).unflatten(-1, (-1, self.head_dim))
            for project, of in ((self.q, y), (self.k, y), (self.v, x))
        )
        q, k = self.position(self.q_norm(q), self.k_norm(k), ctx)
        return self.o(ctx.attend(self.slot, q, k, v, self.score).flatten(-2))  # type: ignore[no-any-return]
