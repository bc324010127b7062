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
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .cache import Cache, Pool
from .errors import RequestError
from .kernels.attention import Score, Sight, attention
from .prompt import Memory, Project, Prompt, Slot

__all__ = ["Cache", "Context", "Full", "Memory", "Paged", "Pool", "Prompt", "Score", "Slot", "Stream"]

T = TypeVar("T")


@runtime_checkable
class Context(Protocol):
    """Everything about a forward pass that is not a weight."""

    positions: Tensor  # (*L): the absolute position of each token

    @property
    def prompt(self) -> Prompt | None:
        """How each token's sequence begins, broadcastable to (*L); None where the caller did not say."""
        ...

    @property
    def lengths(self) -> Tensor:
        """How many tokens each token's sequence holds once this step is in, int64, broadcastable to (*L)."""
        ...

    @property
    def segments(self) -> Tensor | None:
        """Which segment of its text each token is in, int64 (*L); None where all are in the first."""
        ...

    @property
    def docked(self) -> tuple[Tensor, Tensor] | None:
        """What stands in place of embedded tokens, (*L, width), and where, bool (*L); None: nothing does."""
        ...

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return make(), computed on the first call for this key and step: what all layers share."""
        ...

    def attend(self, slot: Slot, q: Tensor, k: Tensor, v: Tensor, score: Score) -> Tensor:
        """Let each query see its sequence: q (*L, heads, dim), k and v (*L, kv heads, dim) to q's shape."""
        ...

    def recall(self, slot: Slot, q: Tensor, project: Project, score: Score) -> Tensor:
        """Let each query see the source that its sequence answers: q (*L, heads, dim) to q's shape.

        project: what makes keys and values of it. Raises RequestError where there is no source.
        """
        ...

    def previous(self, slot: Slot, x: Tensor) -> Tensor:
        """Return x (*L, dim) of the token before each in its sequence, zeros before the first; keep x."""
        ...


@dataclass
class _Step:
    """What every context has: positions, and what all layers share for one step."""

    positions: Tensor
    _shared: dict[Hashable, object] = field(default_factory=dict, repr=False, kw_only=True)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]  # type: ignore[return-value]  # each key has one maker, so one type


class _Rectangle(_Step):
    """A step of rows (B, t), each of one sequence."""

    prompt: Prompt | None

    @property
    def segments(self) -> Tensor | None:
        return None if self.prompt is None else self.prompt.segment(self.positions)

    @property
    def docked(self) -> tuple[Tensor, Tensor] | None:
        docked = None if self.prompt is None else self.prompt.docked
        return None if docked is None else docked.at(self.positions)

    def recall(self, slot: Slot, q: Tensor, project: Project, score: Score) -> Tensor:
        return _source(self.prompt).attend(slot, q, project, score)


def _source(prompt: Prompt | None) -> Memory:
    if prompt is None or prompt.memory is None:
        raise RequestError("this model answers a source: give the context prompt=model.prompt(source)")
    return prompt.memory


@dataclass
class Full(_Rectangle):
    """No memory: every token of a (B, T) batch is present.

    positions (B, T). seen: which tokens are real, bool (B, T); or who sees whom, bool (B, T, T) with queries
    first, for packed documents. It narrows what the layer's Score allows.
    """

    seen: Tensor | None = None
    prompt: Prompt | None = None

    @classmethod
    def of(cls, tokens: Tensor, seen: Tensor | None = None, prompt: Prompt | None = None) -> Self:
        """Return the context of a batch whose rows each start at position 0. tokens (B, T).

        seen: which tokens are real, bool (B, T): the first of them stands at 0, wherever the padding is.
        """
        if seen is not None and seen.ndim == 2:
            return cls((seen.cumsum(-1) - 1).clamp_min(0), seen.bool(), prompt)
        rows, count = tokens.shape
        return cls(torch.arange(count, device=tokens.device).expand(rows, -1), seen, prompt)

    @property
    def lengths(self) -> Tensor:
        if self.seen is not None and self.seen.ndim == 2:
            return self.seen.sum(-1, keepdim=True)
        return self.positions.amax(-1, keepdim=True) + 1

    def attend(self, slot: Slot, q: Tensor, k: Tensor, v: Tensor, score: Score) -> Tensor:
        return attention(q, k, v, score, self.once("sight", self._sight))

    def previous(self, slot: Slot, x: Tensor) -> Tensor:
        return _shifted(x) * (self.positions > 0)[..., None]

    def _sight(self) -> Sight:
        seen = self.seen[:, None] if self.seen is not None and self.seen.ndim == 2 else self.seen
        return _sight(self.positions, self.positions, self.lengths, self.prompt, seen)


def _shifted(x: Tensor) -> Tensor:
    """Return x (B, T, dim) one token later, zeros first."""
    return torch.cat((torch.zeros_like(x[:, :1]), x[:, :-1]), 1)


def _sight(
    q_pos: Tensor, k_pos: Tensor, lengths: Tensor, prompt: Prompt | None, seen: Tensor | None = None
) -> Sight:
    prefix, since = (None, None) if prompt is None else (prompt.prefix, prompt.first_seen(q_pos))
    return Sight(q_pos, k_pos, seen, lengths=lengths, prefix=prefix, since=since)


@dataclass
class Stream(_Rectangle):
    """One rectangle of sequences over a Cache, extended by t tokens a step.

    positions (B, t). start: given when all rows stand at start, start + 1, ...; then writing is one copy a
    layer and keys beyond the step are not read at all. Without it rows may stand anywhere. prompt: how the
    sequences began, the same at every step.
    """

    cache: Cache
    start: int | None = None
    prompt: Prompt | None = None

    @classmethod
    def at(cls, cache: Cache, start: int, count: int, prompt: Prompt | None = None) -> Self:
        """Return the step in which every row of the cache gains `count` tokens from position `start`.

        Raises RequestError when they do not fit.
        """
        if start + count > cache.capacity:
            raise RequestError(
                f"{start + count} tokens do not fit a cache of {cache.capacity}; call Cache.grow first"
            )
        rows, device = cache.k[0].shape[0], cache.k[0].device
        return cls(torch.arange(start, start + count, device=device).expand(rows, -1), cache, start, prompt)

    @property
    def lengths(self) -> Tensor:
        now = self.positions[:, -1:] + 1
        return now if self.prompt is None else now.maximum(self.prompt.length)

    def attend(self, slot: Slot, q: Tensor, k: Tensor, v: Tensor, score: Score) -> Tensor:
        keys, values = self.cache.k[slot.index], self.cache.v[slot.index]
        if self.start is None:
            rows = self.once("rows", self._rows)
            keys[rows, self.positions], values[rows, self.positions] = k, v
        else:
            stop = self.start + q.shape[1]
            keys[:, self.start : stop], values[:, self.start : stop] = k, v
            keys, values = keys[:, :stop], values[:, :stop]
        return attention(q, keys, values, score, self.once("sight", lambda: self._sight(keys.shape[1])))

    def previous(self, slot: Slot, x: Tensor) -> Tensor:
        kept, rows = self.cache.k[slot.index][:, :, 0], self.once("rows", self._rows)
        kept[rows, self.positions] = x
        before = kept[rows, (self.positions - 1).clamp_min(0)]
        return before * (self.positions > 0)[..., None]

    def _rows(self) -> Tensor:
        return torch.arange(self.positions.shape[0], device=self.positions.device)[:, None]

    def _sight(self, keys: int) -> Sight:
        k_pos = torch.arange(keys, device=self.positions.device)[None]
        return _sight(self.positions, k_pos, self.lengths, self.prompt)


@dataclass
class Paged(_Step):
    """Tokens of many sequences laid end to end, over pages of a Pool.

    positions (N,). spans: the range of tokens that each sequence has in this step. tables: the pages of each
    sequence, in order; they must hold every position up to the sequence's last. prompts: how each sequence
    began, of one row each.
    """

    pool: Pool
    spans: Sequence[tuple[int, int]]
    tables: Sequence[Tensor]
    prompts: Sequence[Prompt] | None = None

    @property
    def pages(self) -> Tensor:
        """The pages of each sequence in order, a row each, int64 (sequences, most); rows end in page 0."""
        return self.once("pages", lambda: pad_sequence(list(self.tables), batch_first=True))

    @property
    def lengths(self) -> Tensor:
        return torch.cat([n.expand(b - a) for n, (a, b) in zip(self._lengths(), self.spans, strict=True)])

    @property
    def prompt(self) -> Prompt | None:
        return None if self.prompts is None else self.once("prompt", self._laid_out)

    def attend(self, slot: Slot, q: Tensor, k: Tensor, v: Tensor, score: Score) -> Tensor:
        written, read = self.once("rows", self._rows)
        self.pool.write(slot.index, written, k, v)
        out = torch.empty_like(q)
        for (a, b), rows, sight in zip(self.spans, read, self.once("sights", self._sights), strict=True):
            keys, values = self.pool.read(slot.index, rows)
            out[a:b] = attention(q[None, a:b], keys[None], values[None], score, sight)[0]
        return out

    @property
    def segments(self) -> Tensor | None:
        prompts = self.prompts or ()
        if all(prompt.segments is None for prompt in prompts):
            return None
        rows = [self.positions[None, a:b] for a, b in self.spans]
        each = [prompt.segment(row) for prompt, row in zip(prompts, rows, strict=True)]
        return torch.cat([(0 * row if s is None else s)[0] for s, row in zip(each, rows, strict=True)])

    @property
    def docked(self) -> tuple[Tensor, Tensor] | None:
        have = [prompt.docked for prompt in self.prompts or () if prompt.docked is not None]
        if not have:
            return None
        vectors = have[0].vectors.new_zeros(*self.positions.shape, have[0].vectors.shape[-1])
        where = torch.zeros_like(self.positions, dtype=torch.bool)
        for (a, b), prompt in zip(self.spans, self.prompts or (), strict=True):
            if prompt.docked is not None:
                (vectors[a:b],), (where[a:b],) = prompt.docked.at(self.positions[None, a:b])
        return vectors, where

    def recall(self, slot: Slot, q: Tensor, project: Project, score: Score) -> Tensor:
        out = torch.empty_like(q)
        prompts: Sequence[Prompt | None] = self.prompts or [None] * len(self.spans)
        for (a, b), prompt in zip(self.spans, prompts, strict=True):
            out[a:b] = _source(prompt).attend(slot, q[None, a:b], project, score)[0]
        return out

    def previous(self, slot: Slot, x: Tensor) -> Tensor:
        kept = self.pool.k[slot.index].flatten(0, 1)[:, 0]  # (pages * size, dim)
        written, read = self.once("rows", self._rows)
        kept[written] = x
        before = [
            rows[(self.positions[a:b] - 1).clamp_min(0)]
            for (a, b), rows in zip(self.spans, read, strict=True)
        ]
        return kept[torch.cat(before)] * (self.positions > 0)[:, None]

    def _lengths(self) -> list[Tensor]:
        """How many tokens each sequence holds once this step is in, (1,) each."""
        now = [self.positions[b - 1 : b] + 1 for _, b in self.spans]
        prompts = self.prompts or []
        return [n.maximum(p.length[0]) for n, p in zip(now, prompts, strict=True)] if prompts else now

    def _laid_out(self) -> Prompt:
        """Lay the sequences' prompts end to end, one number a token; `since` is the sights' own business."""
        fields: dict[str, Any] = {}
        for name in ("length", "prefix", "blank", "stretch"):
            each = [getattr(prompt, name) for prompt in self.prompts or ()]
            if all(value is not None for value in each):
                spans = zip(each, self.spans, strict=True)
                fields[name] = torch.cat([value[0].expand(b - a) for value, (a, b) in spans])
        return Prompt(**fields)

    def _rows(self) -> tuple[Tensor, list[Tensor]]:
        """Where this step's tokens are written, (N,), and where each sequence is read, [(its length,)]."""
        size, read, written = self.pool.k[0].shape[1], [], []
        for (a, b), table in zip(self.spans, self.tables, strict=True):
            where = (table[:, None] * size + torch.arange(size, device=table.device)).flatten()
            read.append(where[: int(self.positions[b - 1]) + 1])
            written.append(where[self.positions[a:b]])
        return torch.cat(written), read

    def _sights(self) -> list[Sight]:
        read, lengths = self.once("rows", self._rows)[1], self._lengths()
        prompts: Sequence[Prompt | None] = self.prompts or [None] * len(read)
        return [
            _sight(
                self.positions[None, a:b], torch.arange(len(rows), device=rows.device)[None], n[None], prompt
            )
            for (a, b), rows, n, prompt in zip(self.spans, read, lengths, prompts, strict=True)
        ]
