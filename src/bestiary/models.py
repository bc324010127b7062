"""The architectures: stacks of blocks between an embedding and a head, alone or one behind another."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from types import EllipsisType

import torch
from torch import Tensor, nn

from .bricks import CrossAttention, Docks, Remembers, Slotted, Unplaced
from .context import Context, Full, Memory, Prompt, Slot
from .errors import RequestError
from .prompt import Docked

# An index into (*L, width): which positions are worth the head. Ellipsis is all of them.
Pick = EllipsisType | tuple[slice | int | Tensor, ...]
# Tokens (B, T) and which of them are real (bool (B, T), or None) -> how the sequences begin.
Reader = Callable[[Tensor, Tensor | None], Prompt]


class Blocks(nn.ModuleList):
    """Blocks in order, called as one: a faster way to run several together takes this one's place."""

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        for block in self:
            x = block(x, ctx)
        return x


def causal(tokens: Tensor, seen: Tensor | None = None) -> Prompt:
    """Read prompts of which every token sees those before it: nothing but their lengths matters."""
    rows, count = tokens.shape
    return Prompt(tokens.new_full((rows, 1), count) if seen is None else seen.sum(-1, keepdim=True))


class Stack(nn.Module):
    """Tokens, an embedding, blocks in order, a norm, a head: what its layers see makes it one or the other.

    Every layer that remembers, and every one that recalls, is numbered, so that it has a place in a cache or
    a memory. positions: what adds absolute positions to the embedded tokens. reader: what the model must know
    of a whole prompt before it computes any of it. bias: what the scores of all layers share, if it has
    weights (T5's buckets).
    """

    def __init__(
        self,
        embed: nn.Module,
        layers: Iterable[nn.Module],
        norm: nn.Module | None = None,
        head: nn.Module | None = None,
        *,
        positions: nn.Module | None = None,
        reader: Reader = causal,
        bias: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.layers, self.norm = Blocks(layers), norm or nn.Identity()
        self.embed, self.head, self.positions = embed, head or nn.Identity(), positions or Unplaced()
        self.reader, self.bias = reader, bias
        for kind in (Remembers, CrossAttention):
            for index, layer in enumerate(self._slotted(kind)):
                layer.number(index)

    def slots(self) -> list[Slot]:
        """Return what each layer that remembers asks of a cache, in order."""
        return [layer.slot for layer in self._slotted(Remembers)]

    def prompt(self, tokens: Tensor, seen: Tensor | None = None) -> Prompt:
        """Read whole prompts, int64 (B, T), for the contexts that these sequences will have.

        seen: which tokens are real, bool (B, T).
        """
        return self.reader(tokens, seen)

    def hidden(self, tokens: Tensor, ctx: Context) -> Tensor:
        """Return the stream after the last norm, (*L, width): what the head reads. tokens int64 (*L)."""
        return self.norm(self.layers(self.positions(self.embed(tokens), ctx), ctx))  # type: ignore[no-any-return]

    def forward(self, tokens: Tensor, ctx: Context, pick: Pick = ...) -> Tensor:
        """Return what the head makes of the picked positions, (*picked, outputs). tokens int64 (*L)."""
        return self.head(self.hidden(tokens, ctx)[pick])  # type: ignore[no-any-return]

    def _slotted(self, kind: type[Slotted]) -> list[Slotted]:
        return [module for module in self.layers.modules() if isinstance(module, kind)]


class Decoder(Stack):
    """Tokens to logits of the next token: GPT, Llama, GLM and their relatives."""


class Encoder(Stack):
    """Tokens to states that have seen both sides, and to what heads make of them: BERT and its relatives.

    head: what is said of each token: what a mask hides, classes; none unless given. pooler: the summary of a
    text from its first token's state, none unless given; judge: what is said of the text from its summary:
    classes, or whether two sentences follow each other.
    """

    def __init__(
        self,
        embed: nn.Module,
        layers: Iterable[nn.Module],
        norm: nn.Module | None = None,
        *,
        positions: nn.Module | None = None,
        bias: nn.Module | None = None,
    ) -> None:
        super().__init__(embed, layers, norm, positions=positions, bias=bias)
        self.pooler: nn.Module = nn.Identity()
        self.judge: nn.Module = nn.Identity()

    def verdict(self, states: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return what is said of whole texts, (B, outputs), from their states (B, T, width)."""
        first = 0 if seen is None else seen.int().argmax(-1)
        rows = torch.arange(len(states), device=states.device)
        return self.judge(self.pooler(states[rows, first]))  # type: ignore[no-any-return]


class SemiCausal(Decoder):
    """A decoder of texts in which spans are read by an encoder first, each as a whole: MetaLM.

    Hao et al., 2022, arXiv 2206.06336. What the encoder makes of a span, through the connector, stands in
    place of the span's embedded tokens; the decoder sees all of it, from the left. longest: the most tokens
    of a span.
    """

    def __init__(
        self,
        embed: nn.Module,
        layers: Iterable[nn.Module],
        norm: nn.Module | None,
        head: nn.Module,
        *,
        encoder: Encoder,
        connector: nn.Module,
        longest: int,
        positions: nn.Module | None = None,
    ) -> None:
        super().__init__(embed, layers, norm, head, positions=Docks(positions or Unplaced()))
        self.encoder, self.connector, self.longest = encoder, connector, longest

    def prompt(self, tokens: Tensor, seen: Tensor | None = None, spans: Tensor | None = None) -> Prompt:
        """Read whole prompts, int64 (B, T), and encode their spans.

        seen: which tokens are real, bool (B, T). spans: the number of the span that each token is in, int64
        (B, T), 0 for none. Raises RequestError for a span that is too long.
        """
        begin = super().prompt(tokens, seen)
        if spans is None or not spans.any():
            return begin
        row, at = spans.nonzero(as_tuple=True)
        numbers = row * (spans.max() + 1) + spans[row, at]
        _, which, sizes = torch.unique_consecutive(numbers, return_inverse=True, return_counts=True)
        if (most := int(sizes.max())) > self.longest:
            raise RequestError(f"a span of {most} tokens is longer than the {self.longest} that are encoded")
        place = torch.arange(len(row), device=row.device) - (sizes.cumsum(0) - sizes)[which]
        sources = tokens.new_zeros(len(sizes), most)  # a row for each span
        sources[which, place] = tokens[row, at]
        real = torch.arange(most, device=row.device) < sizes[:, None]
        states = self.connector(self.encoder.hidden(sources, Full.of(sources, real)))
        stands = at if seen is None else (seen.cumsum(1) - 1)[row, at]  # by position, padding aside
        vectors = states.new_zeros(*tokens.shape, states.shape[-1])
        vectors[row, stands] = states[which, place]
        where = torch.zeros_like(tokens, dtype=torch.bool)
        where[row, stands] = True
        return replace(begin, docked=Docked(vectors, where))


class EncoderDecoder(nn.Module):
    """Tokens of a source to states, and tokens of its answer to logits of the next: Transformer, T5, BART.

    A prompt is the source: `prompt` encodes it, once, and the contexts carry what came of it. The answer
    begins with the tokens `start`.
    """

    def __init__(self, encoder: Encoder, decoder: Decoder, start: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder, self.decoder, self.start = encoder, decoder, start

    @property
    def head(self) -> nn.Module:
        """What makes logits of the decoder's states."""
        return self.decoder.head

    def slots(self) -> list[Slot]:
        """Return what each layer that remembers asks of a cache, in order."""
        return self.decoder.slots()

    def prompt(self, tokens: Tensor, seen: Tensor | None = None, segments: Tensor | None = None) -> Prompt:
        """Encode sources, int64 (B, S), for the contexts that their answers will have.

        seen: which tokens are real, bool (B, S). segments: which segment each is in, int64 (B, S).
        """
        begin = Prompt(causal(tokens, seen).length, segments=segments)
        states = self.encoder.hidden(tokens, Full.of(tokens, seen, begin))
        return Prompt(torch.zeros_like(begin.length), memory=Memory(states, seen))

    def hidden(self, tokens: Tensor, ctx: Context) -> Tensor:
        """Return the decoder's stream after its last norm, (*L, width). tokens int64 (*L), of the answer."""
        return self.decoder.hidden(tokens, ctx)

    def forward(self, tokens: Tensor, ctx: Context, pick: Pick = ...) -> Tensor:
        """Return logits (*picked, vocabulary) of the picked positions. tokens int64 (*L), of the answer."""
        return self.decoder(tokens, ctx, pick)  # type: ignore[no-any-return]


# What writes: logits of a next token.
Writer = Decoder | EncoderDecoder
Model = Writer | Encoder
