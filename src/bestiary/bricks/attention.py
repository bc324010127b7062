"""Attention: three projections in, one out; what is seen is the context's business."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from ..context import Context, Score, Slot
from ..errors import ConfigError
from .positions import Position, unmoved


@dataclass(frozen=True)
class Heads:
    """How an attention layer is divided: query heads, key/value heads, channels a head."""

    queries: int
    kv: int
    dim: int

    def __post_init__(self) -> None:
        if self.queries % self.kv:
            raise ConfigError(f"{self.queries} query heads cannot share {self.kv} key/value heads evenly")

    @classmethod
    def of(cls, width: int, queries: int, kv: int | None = None) -> Heads:
        """Return heads that divide `width` evenly; as many key/value heads as query heads unless told."""
        if width % queries:
            raise ConfigError(f"a width of {width} cannot be divided into {queries} heads")
        return cls(queries, kv or queries, width // queries)


class Slotted(nn.Module):
    """A layer with a place of its own in a context's memory."""

    slot: Slot

    def number(self, index: int) -> None:
        """Take a place in the stack, counted among the layers of this kind."""
        self.slot = replace(self.slot, index=index)


class Remembers(Slotted):
    """A layer that a cache keeps something for: keys and values, or what a convolution looks back on."""


class Attention(Remembers):
    """o(attend(position(q_norm(q x), k_norm(k x)), v x)): Vaswani et al., 2017, with grouped keys (arXiv
    2305.13245).

    width: channels of the stream. x (*L, width) -> (*L, width).
    """

    def __init__(
        self,
        width: int,
        heads: Heads,
        *,
        score: Score | None = None,
        position: Position = unmoved,
        bias: bool = False,
        out_bias: bool = False,
        q_norm: nn.Module | None = None,
        k_norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.head_dim, self.position, self.score = heads.dim, position, score or Score()
        self.slot = Slot(-1, heads.kv, heads.dim)  # numbered when a stack is assembled
        self.q = nn.Linear(width, heads.queries * heads.dim, bias)
        self.k = nn.Linear(width, heads.kv * heads.dim, bias)
        self.v = nn.Linear(width, heads.kv * heads.dim, bias)
        self.o = nn.Linear(heads.queries * heads.dim, width, out_bias)
        self.q_norm, self.k_norm = q_norm or nn.Identity(), k_norm or nn.Identity()

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of x (*L, width), each (*L, heads, head_dim)."""
        # -1: the heads that this process holds; a tensor-parallel plan cuts the projections without asking
        # here.
        q, k, v = (project(x).unflatten(-1, (-1, self.head_dim)) for project in (self.q, self.k, self.v))
        return q, k, v

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        q, k, v = self.project(x)
        q, k = self.position(self.q_norm(q), self.k_norm(k), ctx)
        return self.o(ctx.attend(self.slot, q, k, v, self.score).flatten(-2))  # type: ignore[no-any-return]


class CrossAttention(Slotted):
    """o(recall(q x)): queries of one text, keys and values of another, which an encoder has read.

    Vaswani et al., 2017. width: channels of the stream; source: of the encoder's, the same unless told.
    x (*L, width) -> (*L, width).
    """

    def __init__(
        self,
        width: int,
        heads: Heads,
        *,
        source: int | None = None,
        score: Score | None = None,
        bias: bool = False,
        out_bias: bool = False,
    ) -> None:
        super().__init__()
        self.head_dim, self.score = heads.dim, score or Score(causal=False)
        self.slot = Slot(-1, heads.kv, heads.dim)
        self.q = nn.Linear(width, heads.queries * heads.dim, bias)
        self.k = nn.Linear(source or width, heads.kv * heads.dim, bias)
        self.v = nn.Linear(source or width, heads.kv * heads.dim, bias)
        self.o = nn.Linear(heads.queries * heads.dim, width, out_bias)

    def project(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values of a source's states (B, S, source), each (B, S, heads, head_dim)."""
        k, v = (project(states).unflatten(-1, (-1, self.head_dim)) for project in (self.k, self.v))
        return k, v

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        q = self.q(x).unflatten(-1, (-1, self.head_dim))
        return self.o(ctx.recall(self.slot, q, self.project, self.score).flatten(-2))  # type: ignore[no-any-return]


class ClippedAttention(Attention):
    """Attention whose queries, keys and values are clamped to [-limit, limit]: MPT-30B's `clip_qkv`."""

    def __init__(self, width: int, heads: Heads, *, limit: float, **kind: Any) -> None:
        super().__init__(width, heads, **kind)
        self.limit = limit

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().project(x)
        return (
            q.clamp(-self.limit, self.limit),
            k.clamp(-self.limit, self.limit),
            v.clamp(-self.limit, self.limit),
        )
