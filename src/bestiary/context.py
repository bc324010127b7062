"""The seam between a model and its memory: where tokens stand, who may be seen, where keys and values live.

A model is a pure function of (weights, tokens, context). A layer says what its attention is (a Score), the
context says what is there. Three contexts share one protocol:

    Full      a (B, T) batch, everything present         training, encoding, scoring
    Stream    a (B, t) rectangle that grows              one conversation, a fixed batch
    Paged     (N,) tokens of many sequences, end to end  continuous batching, chunked prefill, shared prefixes
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self, TypeVar, runtime_checkable

import torch
from torch import Tensor

from .errors import RequestError
from .kernels.attention import Score, Sight, attention

__all__ = ["Cache", "Context", "Full", "Paged", "Pool", "Score", "Slot", "Stream"]

T = TypeVar("T")


@dataclass(frozen=True)
class Slot:
    """What one attention layer asks of a cache: its place in the stack, and the shape it writes."""

    index: int
    heads: int  # key/value heads
    dim: int


class HasSlots(Protocol):
    """Anything a cache can be made for: a model."""

    def slots(self) -> list[Slot]:
        """Return one Slot an attention layer, in order."""
        ...


@runtime_checkable
class Context(Protocol):
    """Everything about a forward pass that is not a weight."""

    positions: Tensor  # (*L): the absolute position of each token

    @property
    def lengths(self) -> Tensor:
        """How many tokens each token's sequence holds once this step is in, int64, broadcastable to (*L)."""
        ...

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return make(), computed on the first call for this key and step: what all layers share."""
        ...

    def attend(self, slot: Slot, q: Tensor, k: Tensor, v: Tensor, score: Score) -> Tensor:
        """Let each query see its sequence: q (*L, heads, dim), k and v (*L, kv heads, dim) to q's shape."""
        ...


@dataclass
class _Step:
    """What every context has: positions, and a memory that lasts one step."""

    positions: Tensor
    _shared: dict[Hashable, object] = field(default_factory=dict, repr=False, kw_only=True)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]  # type: ignore[return-value]  # each key has one maker, so one type


@dataclass
class Full(_Step):
    """No memory: every token of a (B, T) batch is present.

    positions (B, T). seen: which tokens are real, bool (B, T); or who sees whom, bool (B, T, T) with queries
    first, for packed documents and bidirectional prefixes. It narrows what the layer's Score allows.
    """

    seen: Tensor | None = None

    @classmethod
    def of(cls, tokens: Tensor, seen: Tensor | None = None) -> Self:
        """Return the context of a batch whose rows all start at position 0. tokens (B, T)."""
        rows, count = tokens.shape
        return cls(torch.arange(count, device=tokens.device).expand(rows, -1), seen)

    @property
    def lengths(self) -> Tensor:
        real = self.positions if self.seen is None or self.seen.ndim == 3 else self.positions * self.seen
        return real.amax(-1, keepdim=True) + 1

    def attend(self, slot: Slot, q: Tensor, k: Tensor, v: Tensor, score: Score) -> Tensor:
        return attention(q, k, v, score, self.once("sight", self._sight))

    def _sight(self) -> Sight:
        seen = self.seen[:, None] if self.seen is not None and self.seen.ndim == 2 else self.seen
        return Sight(self.positions, self.positions, seen)


@dataclass
class Cache:
    """Keys and values of a fixed set of sequences: one rectangle (B, capacity, kv heads, dim) a layer."""

    k: list[Tensor]
    v: list[Tensor]

    @classmethod
    def empty(
        cls,
        model: HasSlots,
        batch: int,
        length: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Self:
        """Return room for `length` tokens in each of `batch` sequences."""
        shapes = [(batch, length, slot.heads, slot.dim) for slot in model.slots()]
        # Zeros, not empty: a masked key still enters the product with weight 0, and 0 * NaN is NaN.
        return cls(*([torch.zeros(s, dtype=dtype, device=device) for s in shapes] for _ in "kv"))

    @property
    def capacity(self) -> int:
        """How many tokens of each sequence fit."""
        return self.k[0].shape[1]

    def grow(self, length: int) -> None:
        """Make room for `length` tokens, keeping what is there."""
        if length > self.capacity:
            for tensors in (self.k, self.v):
                for i, old in enumerate(tensors):
                    tensors[i] = old.new_zeros((old.shape[0], length, *old.shape[2:]))
                    tensors[i][:, : old.shape[1]] = old


@dataclass
class Stream(_Step):
    """One rectangle of sequences over a Cache, extended by t tokens a step.

    positions (B, t). start: given when all rows stand at start, start + 1, ...; then writing is one copy a
    layer and keys beyond the step are not read at all. Without it rows may stand anywhere. total: the length
    of a prompt that is taken in pieces, for positions that depend on it.
    """

    cache: Cache
    start: int | None = None
    total: int | None = None

    @classmethod
    def at(cls, cache: Cache, start: int, count: int, *, total: int | None = None) -> Self:
        """Return the step in which every row of the cache gains `count` tokens from position `start`.

        Raises RequestError when they do not fit.
        """
        if start + count > cache.capacity:
            raise RequestError(
                f"{start + count} tokens do not fit a cache of {cache.capacity}; call Cache.grow first"
            )
        rows, device = cache.k[0].shape[0], cache.k[0].device
        return cls(torch.arange(start, start + count, device=device).expand(rows, -1), cache, start, total)

    @property
    def lengths(self) -> Tensor:
        if self.total is not None:
            return torch.tensor(self.total, device=self.positions.device)
        return self.positions[:, -1:] + 1

    def attend(self, slot: Slot, q: Tensor, k: Tensor, v: Tensor, score: Score) -> Tensor:
        keys, values = self.cache.k[slot.index], self.cache.v[slot.index]
        if self.start is None:
            rows = self.once("rows", lambda: torch.arange(q.shape[0], device=q.device)[:, None])
            keys[rows, self.positions], values[rows, self.positions] = k, v
        else:
            stop = self.start + q.shape[1]
            keys[:, self.start : stop], values[:, self.start : stop] = k, v
            keys, values = keys[:, :stop], values[:, :stop]
        return attention(q, keys, values, score, self.once("sight", lambda: self._sight(keys.shape[1])))

    def _sight(self, keys: int) -> Sight:
        return Sight(self.positions, torch.arange(keys, device=self.positions.device)[None])


@dataclass
class Pool:
    """Pages of keys and values that many sequences share: (pages, page size, kv heads, dim) a layer."""

    k: list[Tensor]
    v: list[Tensor]

    @classmethod
    def empty(
        cls,
        model: HasSlots,
        pages: int,
        size: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Self:
        """Return `pages` pages of `size` tokens."""
        shapes = [(pages, size, slot.heads, slot.dim) for slot in model.slots()]
        return cls(*([torch.zeros(s, dtype=dtype, device=device) for s in shapes] for _ in "kv"))


@dataclass
class Paged(_Step):
    """Tokens of many sequences laid end to end, over pages of a Pool.

    positions (N,). spans: the range of tokens that each sequence has in this step. tables: the pages of each
    sequence, in order; they must hold every position up to the sequence's last.
    """

    pool: Pool
    spans: Sequence[tuple[int, int]]
    tables: Sequence[Tensor]

    @property
    def lengths(self) -> Tensor:
        return torch.cat([(self.positions[b - 1] + 1).expand(b - a) for a, b in self.spans])

    def attend(self, slot: Slot, q: Tensor, k: Tensor, v: Tensor, score: Score) -> Tensor:
        keys, values = (
            t[slot.index].flatten(0, 1) for t in (self.pool.k, self.pool.v)
        )  # (pages * size, heads, dim)
        written, read = self.once("rows", self._rows)
        keys[written], values[written] = k, v
        out = torch.empty_like(q)
        for (a, b), rows, sight in zip(self.spans, read, self.once("sights", self._sights), strict=True):
            out[a:b] = attention(q[None, a:b], keys[rows][None], values[rows][None], score, sight)[0]
        return out

    def _rows(self) -> tuple[Tensor, list[Tensor]]:
        """Where this step's tokens are written, (N,), and where each sequence is read, [(its length,)]."""
        size, read, written = self.pool.k[0].shape[1], [], []
        for (a, b), table in zip(self.spans, self.tables, strict=True):
            where = (table[:, None] * size + torch.arange(size, device=table.device)).flatten()
            read.append(where[: int(self.positions[b - 1]) + 1])
            written.append(where[self.positions[a:b]])
        return torch.cat(written), read

    def _sights(self) -> list[Sight]:
        return [
            Sight(self.positions[None, a:b], torch.arange(len(rows), device=rows.device)[None])
            for (a, b), rows in zip(self.spans, self.once("rows", self._rows)[1], strict=True)
        ]
