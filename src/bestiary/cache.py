"""Where keys and values of a sequence are kept: rectangles, and pages that many sequences share."""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from .prompt import Slot

# Bytes from which memory is asked of the system rather than of torch.
_LARGE = 1 << 20
# What a scale of eight bits is divided by at least: 0 / 0 is NaN.
_LEAST = torch.finfo(torch.float32).tiny


class HasSlots(Protocol):
    """Anything a cache can be made for: a model."""

    def slots(self) -> list[Slot]:
        """Return one Slot an attention layer, in order."""
        ...


def _room(
    model: HasSlots, rows: int, length: int, kind: Mapping[str, Any]
) -> tuple[list[Tensor], list[Tensor]]:
    """Return zeros (rows, length, heads, channels) for the keys and for the values of each slot.

    Zeros, not empty: a masked key still enters the product with weight 0, and 0 * NaN is NaN.
    """
    slots = model.slots()
    k = [_zeros((rows, length, slot.heads, slot.dim), **kind) for slot in slots]
    dims = [slot.dim if slot.values is None else slot.values for slot in slots]
    return k, [_zeros((rows, length, slot.heads, dim), **kind) for slot, dim in zip(slots, dims, strict=True)]


def _zeros(shape: tuple[int, ...], *, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Return zeros, of which a CPU's large ones take memory only where they are written on.

    torch.zeros writes all of them: 65,536 tokens of a small model are 3 GB.
    """
    count = math.prod(shape)
    if torch.device(device).type != "cpu" or count * dtype.itemsize < _LARGE:
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.frombuffer(mmap.mmap(-1, count * dtype.itemsize), dtype=dtype).view(shape)


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
        return cls(*_room(model, batch, length, {"dtype": dtype, "device": device}))

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

    def repeated(self, times: int) -> Self:
        """Return a cache of its own in which each sequence stands `times` times in turn."""
        k, v = ([x.repeat_interleave(times, 0) for x in tensors] for tensors in (self.k, self.v))
        return type(self)(k, v)

    def reorder(self, rows: Tensor, begin: int, end: int) -> None:
        """Let sequence i go on from what sequence rows[i] holds, int64 (B,).

        Tokens `begin` up to `end` are copied; those before must be the same in both, as in beams of a prompt.
        """
        for tensors in (self.k, self.v):
            for x in tensors:
                x[:, begin:end] = x[rows, begin:end]


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
        return cls(*_room(model, pages, size, {"dtype": dtype, "device": device}))

    def write(self, index: int, rows: Tensor, k: Tensor, v: Tensor) -> None:
        """Keep keys and values (N, heads, dim) of slot `index` at rows (N,), counted over all pages."""
        self.k[index].flatten(0, 1)[rows], self.v[index].flatten(0, 1)[rows] = k, v

    def read(self, index: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the keys and values (N, heads, dim) of slot `index` at rows (N,)."""
        return self.k[index].flatten(0, 1)[rows], self.v[index].flatten(0, 1)[rows]


@dataclass
class Pool8(Pool):
    """Pages of keys and values in eight bits: a token's head as int8, and one float32 by which it is scaled.

    About 3.8 times smaller than float32 where a head has 64 channels. What is kept of a token depends on that
    token alone. scales: of keys and of values, (pages, page size, kv heads) a layer. dtype: of what is read.
    What a convolution looks back on (Slot.values = 0) is kept as it is.
    """

    scales: tuple[list[Tensor], list[Tensor]] = ([], [])
    dtype: torch.dtype = torch.float32

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
        k, v = _room(model, pages, size, {"dtype": torch.int8, "device": device})
        scales: tuple[list[Tensor], list[Tensor]] = ([], [])
        for slot in model.slots():
            for each in scales:
                each.append(_zeros((pages, size, slot.heads), dtype=torch.float32, device=device))
            if slot.values == 0:
                k[slot.index] = _zeros((pages, size, slot.heads, slot.dim), dtype=dtype, device=device)
        return cls(k, v, scales, dtype)

    def write(self, index: int, rows: Tensor, k: Tensor, v: Tensor) -> None:
        for kept, scales, x in zip((self.k, self.v), self.scales, (k, v), strict=True):
            scale = x.abs().amax(-1).float() / 127  # 0 of a head of zeros, which stays zero
            kept[index].flatten(0, 1)[rows] = (x / scale.clamp_min(_LEAST)[..., None]).round().to(torch.int8)
            scales[index].flatten(0, 1)[rows] = scale

    def read(self, index: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        k, v = (
            (kept[index].flatten(0, 1)[rows] * scales[index].flatten(0, 1)[rows][..., None]).to(self.dtype)
            for kept, scales in zip((self.k, self.v), self.scales, strict=True)
        )
        return k, v
