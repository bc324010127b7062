"""What the C kernels are told of the tokens of a step: whose they are, where their keys and values lie."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from ..bricks import Rotary
from ..context import Cache, Context, Paged, Pool, Prompt, Stream
from ..kernels import native

__all__ = ["Step"]


@dataclass(frozen=True)
class _Place:
    """Where the tokens of one sequence stand, to what asks how fast they turn."""

    positions: Tensor
    lengths: Tensor
    prompt: Prompt | None


@dataclass(eq=False)
class Step:
    """The tokens of a step, laid end to end.

    begins: where each sequence begins among them, and the end of the last. starts: the position of each
    sequence's first token; the others follow it. tables: the pages of each sequence, int64, a row each.
    memory: the pages, (pages, page, heads, channels) a layer; a Cache is one page for each of its rows.
    """

    ctx: Stream | Paged
    memory: Cache | Pool
    page: int
    begins: Sequence[int]
    starts: Sequence[int]
    tables: Tensor
    _turns: dict[Rotary, Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, x: Tensor, ctx: Context) -> Step | None:
        """Return the step of x (*L, width) in a Stream or a Paged context; None where C cannot take it.

        It takes float32 on a CPU, sequences whose tokens follow each other, and no token that sees later ones
        or not all earlier ones.
        """
        if x.dtype != torch.float32 or not x.is_cpu:
            return None
        if type(ctx) is Stream:
            return _of_stream(x, ctx)
        if type(ctx) is Paged:
            # Looked at once, not for each run of blocks.
            return ctx.once("step", lambda: _of_paged(x, ctx))
        return None

    def tokens(
        self, keys: Sequence[int], values: Sequence[int], turns: Tensor, magnitude: float
    ) -> native.Tokens:
        """Describe the step to C. keys, values: where each block's pages are. turns: see `turns`."""
        count, several = len(self.starts), turns.ndim == 2
        array = ctypes.c_void_p * len(keys)
        begins = (ctypes.c_int64 * (count + 1))(*self.begins)
        starts = (ctypes.c_int64 * count)(*self.starts)
        described = native.Tokens(
            count=self.begins[-1],
            sequences=count,
            most=self.tables.shape[1],
            page=self.page,
            turns_step=turns.shape[-1] if several else 0,
            begins=ctypes.addressof(begins),
            starts=ctypes.addressof(starts),
            tables=self.tables.data_ptr(),
            turns=turns.data_ptr(),
            keys=array(*keys),
            values=array(*values),
            magnitude=magnitude,
        )
        described.held = begins, starts, self.tables, turns  # C has their addresses alone
        return described

    def turns(self, rotary: Rotary) -> Tensor:
        """Return radians a position: (turned / 2,) for all tokens, or (tokens, turned / 2)."""
        found = self._turns.get(rotary)
        if found is None:
            found = self._turns[rotary] = self._turning(rotary)
        return found

    def _turning(self, rotary: Rotary) -> Tensor:
        first = self._frequencies(rotary, 0)
        if first.ndim == 1:
            return first
        # Sequence by sequence: PyTorch rounds a power otherwise at the end of a tensor than within it.
        rows = [self._frequencies(rotary, i) for i in range(len(self.starts))]
        counts = torch.tensor([b - a for a, b in pairwise(self.begins)])
        return torch.cat([row.reshape(1, -1) for row in rows]).repeat_interleave(counts, 0)

    def _frequencies(self, rotary: Rotary, index: int) -> Tensor:
        """Return the turns of one sequence: (turned / 2,), or with ones before it where its length enters."""
        ctx, begin = self.ctx, self.begins[index]
        if isinstance(ctx, Stream):
            lengths, prompt = ctx.lengths[index : index + 1], _row(ctx.prompt, index)
            place = _Place(ctx.positions[index : index + 1, :1], lengths, prompt)
        else:
            prompt = None if ctx.prompts is None else ctx.prompts[index]
            positions, lengths = (t[begin : begin + 1, None] for t in (ctx.positions, ctx.lengths))
            place = _Place(positions, lengths, prompt)
        return rotary.frequencies(rotary.dim, rotary.base, place).contiguous()


def _row(prompt: Prompt | None, index: int) -> Prompt | None:
    """Return one row of what positions read of prompts."""
    if prompt is None or prompt.length.shape[0] == 1:
        return prompt
    stretch = None if prompt.stretch is None else prompt.stretch[index : index + 1]
    return Prompt(prompt.length[index : index + 1], stretch=stretch)


def _plain(prompt: Prompt | None, count: int) -> bool:
    """Tell whether each of a sequence's next `count` tokens sees just those up to itself."""
    return prompt is None or (prompt.since is None and (prompt.prefix is None or count == 1))


def _of_stream(x: Tensor, ctx: Stream) -> Step | None:
    rows, count = ctx.positions.shape
    if x.shape[:2] != (rows, count) or not count or not _plain(ctx.prompt, count):
        return None
    if ctx.start is not None:
        starts = [ctx.start] * rows
    else:
        starts = ctx.positions[:, 0].tolist()
        if count > 1 and not bool((ctx.positions.diff() == 1).all()):
            return None
    capacity = ctx.cache.capacity
    if not 0 <= min(starts) <= max(starts) <= capacity - count:
        return None
    begins = range(0, rows * count + 1, count)
    return Step(ctx, ctx.cache, capacity, begins, starts, torch.arange(rows)[:, None])


def _of_paged(x: Tensor, ctx: Paged) -> Step | None:
    begins = [0, *(end for _, end in ctx.spans)]
    if x.shape[:-1] != ctx.positions.shape or begins[-1] != len(ctx.positions) or not ctx.positions.is_cpu:
        return None
    if [begin for begin, _ in ctx.spans] != begins[:-1]:
        return None
    prompts: Sequence[Prompt | None] = ctx.prompts or [None] * len(ctx.spans)
    positions = ctx.positions.tolist()
    page, pages = ctx.pool.k[0].shape[1], ctx.pool.k[0].shape[0]
    for prompt, (a, b), table in zip(prompts, ctx.spans, ctx.tables, strict=True):
        if a >= b or positions[a] < 0 or positions[a:b] != list(range(positions[a], positions[a] + b - a)):
            return None
        if not _plain(prompt, b - a) or positions[b - 1] >= len(table) * page:
            return None
    tables = ctx.pages
    if not tables.is_cpu or not 0 <= int(tables.min()) <= int(tables.max()) < pages:
        return None
    starts = [positions[a] for a, _ in ctx.spans]
    return Step(ctx, ctx.pool, page, begins, starts, tables)
