"""The architectures: each is a stack of blocks between an embedding and a head."""

from __future__ import annotations

from collections.abc import Iterable
from types import EllipsisType

from torch import Tensor, nn

from .bricks import Attention
from .context import Context, Slot

# An index into (*L, width): which positions are worth the head. Ellipsis is all of them.
Pick = EllipsisType | tuple[slice | int | Tensor, ...]


class Blocks(nn.ModuleList):
    """Blocks in order, called as one: a faster way to run several together takes this one's place."""

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        for block in self:
            x = block(x, ctx)
        return x


class Stack(nn.Module):
    """Blocks in order, then a norm; numbers every attention so that a cache can have a slot for it."""

    def __init__(self, layers: Iterable[nn.Module], norm: nn.Module | None = None) -> None:
        super().__init__()
        self.layers, self.norm = Blocks(layers), norm or nn.Identity()
        for index, attn in enumerate(self._attentions()):
            attn.number(index)

    def slots(self) -> list[Slot]:
        """Return what each attention layer asks of a cache, in order."""
        return [attn.slot for attn in self._attentions()]

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        return self.norm(self.layers(x, ctx))  # type: ignore[no-any-return]

    def _attentions(self) -> list[Attention]:
        return [m for m in self.layers.modules() if isinstance(m, Attention)]


class Decoder(Stack):
    """Tokens to logits of the next token: GPT, Llama and their relatives."""

    def __init__(
        self, embed: nn.Module, layers: Iterable[nn.Module], norm: nn.Module, head: nn.Module
    ) -> None:
        super().__init__(layers, norm)
        self.embed, self.head = embed, head

    def hidden(self, tokens: Tensor, ctx: Context) -> Tensor:
        """Return the stream after the last norm, (*L, width): what the head reads. tokens int64 (*L)."""
        return super().forward(self.embed(tokens), ctx)

    def forward(self, tokens: Tensor, ctx: Context, pick: Pick = ...) -> Tensor:
        """Return logits (*picked, vocabulary) of the picked positions. tokens int64 (*L)."""
        return self.head(self.hidden(tokens, ctx)[pick])  # type: ignore[no-any-return]
