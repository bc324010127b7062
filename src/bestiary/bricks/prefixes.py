"""Learned keys and values before every sequence: P-tuning v2, Liu et al., 2021, arXiv 2110.07602."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..context import Context, Prompt, Score, Slot
from ..kernels.attention import Lead
from ..prompt import Project

T = TypeVar("T")


class Prefix(nn.Module):
    """Keys and values of `count` tokens for every layer, from a row of a table a token.

    A row holds, for each layer in turn, its keys and then its values. They are not rotated.
    """

    def __init__(self, count: int, slots: Sequence[Slot], *, table: int | None = None) -> None:
        """Make room for them. table: the width of a row, if that is not what the layers hold."""
        super().__init__()
        self.count, self.slots = count, tuple(slots)
        self.channels = sum(slot.channels for slot in self.slots)
        self.table = nn.Embedding(count, table or self.channels)

    def rows(self, ids: Tensor) -> Tensor:
        """Return keys and values of all layers, (count, channels)."""
        return self.table(ids)  # type: ignore[no-any-return]

    def forward(self, device: torch.device) -> list[Lead]:
        """Return what stands before the sequences, for each layer."""
        rows = self.rows(torch.arange(self.count, device=device))
        pieces = rows.split([slot.channels for slot in self.slots], -1)
        halves = (
            piece.unflatten(-1, (2, slot.heads, slot.dim)).unbind(1)
            for piece, slot in zip(pieces, self.slots, strict=True)
        )
        return [Lead(k, v) for k, v in halves]


class ProjectedPrefix(Prefix):
    """Prefix whose rows are down(tanh(up(row))): `prefix_projection`.

    table: width of a row; hidden: width between.
    """

    def __init__(self, count: int, slots: Sequence[Slot], *, table: int | None = None, hidden: int) -> None:
        super().__init__(count, slots, table=table)
        self.up = nn.Linear(self.table.embedding_dim, hidden)
        self.down = nn.Linear(hidden, self.channels)

    def rows(self, ids: Tensor) -> Tensor:
        return self.down(torch.tanh(self.up(super().rows(ids))))  # type: ignore[no-any-return]


@dataclass
class Prefixed:
    """A context in which each layer also sees keys and values of its own, before every sequence.

    Positions and lengths are those of the sequences. leads: one for each slot.
    """

    inner: Context
    leads: Sequence[Lead]
    positions: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.positions = self.inner.positions

    @property
    def prompt(self) -> Prompt | None:
        return self.inner.prompt

    @property
    def lengths(self) -> Tensor:
        return self.inner.lengths

    @property
    def segments(self) -> Tensor | None:
        return self.inner.segments

    @property
    def docked(self) -> tuple[Tensor, Tensor] | None:
        return self.inner.docked

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        return self.inner.once(key, make)

    def attend(self, slot: Slot, q: Tensor, k: Tensor, v: Tensor, score: Score) -> Tensor:
        return self.inner.attend(slot, q, k, v, replace(score, lead=self.leads[slot.index]))

    def recall(self, slot: Slot, q: Tensor, project: Project, score: Score) -> Tensor:
        return self.inner.recall(slot, q, project, score)

    def previous(self, slot: Slot, x: Tensor) -> Tensor:
        return self.inner.previous(slot, x)
