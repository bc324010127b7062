"""A model's blocks as the C kernels are told of them, made once."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import is_
from typing import cast

import torch
from torch import Tensor, nn

from ..bricks import Attention, PreNorm, Rotary
from ..context import Cache, Pool
from ..kernels import native
from ..models import Blocks
from .fused_step import Step
from .fusible import describe, refusal

__all__ = ["Plan"]


class _Run:
    """Neighbouring blocks that one native call computes; or, without `blocks`, one that it cannot."""

    def __init__(self, modules: tuple[nn.Module, ...], blocks: ctypes.Array[native.Block] | None) -> None:
        self.modules, self.blocks = modules, blocks
        self._memory: Callable[[], Cache | Pool | None] = lambda: None
        self._addresses: list[int] = []  # of the pages of keys, then of values
        self._turns: Tensor | None = None

    def takes(self, x: Tensor, step: Step) -> bool:
        """Tell whether x and the step's memory are what C will take them for."""
        if self.blocks is None or x.shape[-1] != self.blocks[0].o.rows:
            return False
        tensors = self._cached(step.memory)
        addresses = list(map(Tensor.data_ptr, tensors))
        # Looked at closely only where something is new: it takes longer than one matrix.
        if self._memory() is not step.memory or addresses != self._addresses:
            least = len(step.starts) if isinstance(step.memory, Cache) else tensors[0].shape[0]
            shape = (least, step.page, self.blocks[0].kv_heads, self.blocks[0].dim)
            fits = (
                t.shape == shape and t.dtype == torch.float32 and t.is_cpu and t.is_contiguous()
                for t in tensors
            )
            if len(tensors) != 2 * len(self.modules) or not all(fits):
                return False
            self._memory, self._addresses = weakref.ref(step.memory), addresses
        return True

    def compute(self, x: Tensor, step: Step) -> Tensor:
        """Return x after these blocks, their keys and values written to the memory that `takes` looked at."""
        library, threads, count = native.library(), torch.get_num_threads(), len(self.modules)
        turns, magnitude = self._rotation(step)
        tokens = step.tokens(self._addresses[:count], self._addresses[count:], turns, magnitude)
        scratch = x.new_empty(library.blocks_scratch(self.blocks, count, tokens, threads))
        out = x.clone(memory_format=torch.contiguous_format)
        library.blocks(self.blocks, count, tokens, out.data_ptr(), scratch.data_ptr(), threads)
        return out

    def _rotation(self, step: Step) -> tuple[Tensor, float]:
        """Return radians a position, as Step.turns does, and the factor on what was turned."""
        rotary = self._attn.position
        if not isinstance(rotary, Rotary):
            return torch.empty(0), 1.0
        turns = self._turns
        if turns is None:
            turns = step.turns(rotary)
            if turns.ndim == 1:  # the same at every position and length
                self._turns = turns
        return turns, rotary.frequencies.magnitude

    @property
    def _attn(self) -> Attention:
        # The first block's: the others have the same positions, and the cache slots after its own.
        return cast(Attention, self.modules[0].attn)

    def _cached(self, memory: Cache | Pool) -> list[Tensor]:
        slot = self._attn.slot.index
        return memory.k[slot : slot + len(self.modules)] + memory.v[slot : slot + len(self.modules)]


def _runs(blocks: Blocks) -> Iterator[_Run]:
    """Cut blocks into the longest runs that C can compute, and single blocks that it cannot."""

    def key(numbered: tuple[int, nn.Module]) -> tuple[object, ...]:
        index, block = numbered
        if refusal(block) is not None:
            return (index,)
        attn = cast(Attention, block.attn)
        cached = (attn.slot.index - index, attn.k.out_features, attn.head_dim)
        return ("fused", cached, attn.position, attn.q.in_features)

    for (kind, *_), group in groupby(enumerate(blocks), key):
        modules = tuple(block for _, block in group)
        if kind == "fused":
            described = (native.Block * len(modules))(*(describe(cast(PreNorm, block)) for block in modules))
            yield _Run(modules, described)
        else:
            yield _Run(modules, None)


class Plan:
    """What C is told of a model's blocks. Made once, and again when a module or a weight was replaced."""

    def __init__(self, blocks: Blocks) -> None:
        self.runs = list(_runs(blocks))
        self._blocks = tuple(blocks)
        self._holders, self._names, self._parts = list[dict[str, object]](), list[str](), list[object]()
        for module in blocks.modules():
            for holder in (module._modules, module._parameters, module._buffers):
                self._holders += [cast(dict[str, object], holder)] * len(holder)
                self._names += holder.keys()
                self._parts += holder.values()
        self._tensors = [part for part in self._parts if isinstance(part, Tensor)]
        self._addresses = list(map(Tensor.data_ptr, self._tensors))

    def current(self) -> bool:
        """Tell whether every module and tensor below the blocks is still the one described, where it was.

        model.half().float() and `weight.data = ...` keep the tensor and move its memory.
        """
        # Without a loop of Python's own: there are about thirty a block, and this runs for every token.
        same = all(map(is_, map(dict.get, self._holders, self._names), self._parts))
        return same and list(map(Tensor.data_ptr, self._tensors)) == self._addresses

    def watched(self) -> bool:
        """Tell whether a hook waits for one of the blocks to be called."""
        return any(block._forward_hooks or block._forward_pre_hooks for block in self._blocks)

    def run(self, x: Tensor, step: Step) -> Tensor:
        """Return x (*L, width) after all blocks, their keys and values in the step's memory."""
        for run in self.runs:
            if run.takes(x, step):
                x = run.compute(x, step)
            else:
                for module in run.modules:
                    x = module(x, step.ctx)
        return x
