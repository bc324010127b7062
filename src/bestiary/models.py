"""The architectures: each is a stack of blocks between an embedding and a head."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import EllipsisType

from torch import Tensor, nn

from .bricks import Remembers, Unplaced
from .context import Context, Prompt, Slot

# An index into (*L, width): which positions are worth the head. Ellipsis is all of them.
Pick = EllipsisType | tuple[slice | int | Tensor, ...]


class Blocks(nn.ModuleList):
    """Blocks in order, called as one: a faster way to run several together takes this one's place."""

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        for block in self:
            x = block(x, ctx)
        return x


class Stack(nn.Module):
    """Blocks in order, then a norm; numbers every layer that remembers, so that it has a slot in a cache."""

    def __init__(self, layers: Iterable[nn.Module], norm: nn.Module | None = None) -> None:
        super().__init__()
        self.layers, self.norm = Blocks(layers), norm or nn.Identity()
        for index, layer in enumerate(self._remembering()):
            layer.number(index)

    def slots(self) -> list[Slot]:
        """Return what each layer that remembers asks of a cache, in order."""
        return [layer.slot for layer in self._remembering()]

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        return self.norm(self.layers(x, ctx))  # type: ignore[no-any-return]

    def _remembering(self) -> list[Remembers]:
        return [m for m in self.layers.modules() if isinstance(m, Remembers)]


# Tokens (B, T) and which of them are real (bool (B, T), or None) -> how the sequences begin.
Reader = Callable[[Tensor, Tensor | None], Prompt]


def causal(tokens: Tensor, seen: Tensor | None = None) -> Prompt:
    """Read prompts of which every token sees those before it: nothing but their lengths matters."""
    rows, count = tokens.shape
    return Prompt(tokens.new_full((rows, 1), count) if seen is None else seen.sum(-1, keepdim=True))


class Decoder(Stack):
    """Tokens to logits of the next token: GPT, Llama, GLM and their relatives.

    positions: what adds absolute positions to the embedded tokens. reader: what the model must know of a
    whole prompt before it computes any of it.
    """

    def __init__(
        self,
        embed: nn.Module,
        layers: Iterable[nn.Module],
        norm: nn.Module,
        head: nn.Module,
        *,
        positions: nn.Module | None = None,
        reader: Reader = causal,
    ) -> None:
        super().__init__(layers, norm)
        self.embed, self.head, self.positions, self.reader = embed, head, positions or Unplaced(), reader

    def prompt(self, tokens: Tensor, seen: Tensor | None = None) -> Prompt:
        """Read whole prompts, int64 (B, T), for the contexts that these sequences will have.

        seen: which tokens are real, bool (B, T).
        """
        return self.reader(tokens, seen)

    def hidden(self, tokens: Tensor, ctx: Context) -> Tensor:
        """Return the stream after the last norm, (*L, width): what the head reads. tokens int64 (*L)."""
        return super().forward(self.positions(self.embed(tokens), ctx), ctx)

    def forward(self, tokens: Tensor, ctx: Context, pick: Pick = ...) -> Tensor:
        """Return logits (*picked, vocabulary) of the picked positions. tokens int64 (*L)."""
        return self.head(self.hidden(tokens, ctx)[pick])  # type: ignore[no-any-return]
