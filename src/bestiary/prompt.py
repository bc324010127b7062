"""What is known of a sequence before it grows: how its prompt begins, and the source that it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from .errors import RequestError
from .kernels.attention import Score, Sight, attention

# What an encoder made of a source (B, S, width) -> keys and values (B, S, kv heads, dim).
Project = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Slot:
    """What one layer asks of a cache: its place in the stack, and the shape it writes for each token."""

    index: int
    heads: int  # key/value heads
    dim: int  # channels of a key
    values: int | None = None  # channels of a value: as many as of a key unless told; 0: keys alone

    @property
    def channels(self) -> int:
        """Numbers kept for each token."""
        return self.heads * (self.dim + (self.dim if self.values is None else self.values))


@dataclass(eq=False)
class Memory:
    """What an encoder made of each source, and the keys and values that each layer made of that, once.

    states (B, S, width). seen: which tokens of the sources are real, bool (B, S); None for all.
    """

    states: Tensor
    seen: Tensor | None = None
    kept: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        rows, count = self.states.shape[:2]
        device = self.states.device
        # One mask serves any number of queries: which of them asks makes no difference.
        self._sight = Sight(
            torch.zeros(rows, 1, dtype=torch.int64, device=device),
            torch.arange(count, device=device)[None],
            None if self.seen is None or self.seen.all() else self.seen[:, None].bool(),
        )

    def attend(self, slot: Slot, q: Tensor, project: Project, score: Score) -> Tensor:
        """Let queries (B * n, Q, heads, dim) see their sources: n rows in turn share each, as beams do.

        Raises RequestError for rows that do not divide among the sources.
        """
        if len(q) % len(self.states):
            raise RequestError(
                f"{len(q)} row(s) of answers cannot share {len(self.states)} sources evenly; read as many "
                "sources as there are rows, or one for several rows in turn"
            )
        if slot.index not in self.kept:
            self.kept[slot.index] = project(self.states)
        k, v = self.kept[slot.index]
        shared = q.reshape(len(k), -1, *q.shape[2:])
        return attention(shared, k, v, score, self._sight).reshape(q.shape)


@dataclass(frozen=True, eq=False)
class Docked:
    """Vectors that stand in place of embedded tokens.

    vectors (B, n, width) and where they stand, bool (B, n), both by position; beyond n nothing does.
    """

    vectors: Tensor
    where: Tensor

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return vectors (B, t, width), and where they count, of the tokens at positions (B, t)."""
        rows = torch.arange(len(positions), device=positions.device)[:, None]
        count = self.where.shape[1]
        places = positions.clamp_max(count - 1)
        return self.vectors[rows, places], self.where[rows, places] & (positions < count)


@dataclass(frozen=True, eq=False)
class Prompt:
    """What a model must know of how each sequence begins, for as long as it grows: its prompt() reads it.

    Each tensor is int64 or float32, (B, 1) or broadcastable to the tokens of a step. length: how many tokens
    the prompt holds, where it comes in pieces. prefix: how many of its first tokens every token sees, the
    earlier ones too (prefix language models). blank: the position of the mask that is being filled (GLM), or
    -1 where its filling stands after the text. stretch: a factor on the rotary base that was chosen by the
    prompt's length (Qwen). since: int64 (B, n): the first position that the token at each position sees; what
    the last of them sees, all later ones do. segments: int64 (B, n): which segment the token at each position
    is in (BERT's token types), later ones as the last. docked: what stands in place of embedded tokens.
    memory: the source that an encoder has read.
    """

    length: Tensor
    prefix: Tensor | None = None
    blank: Tensor | None = None
    stretch: Tensor | None = None
    since: Tensor | None = None
    segments: Tensor | None = None
    docked: Docked | None = None
    memory: Memory | None = None

    def continues(self, other: Prompt) -> bool:
        """Tell whether what was computed after `other` holds after this one, for the tokens they share."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in ("prefix", "blank", "stretch"))
        same = all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)
        alone = all(prompt.since is None and prompt.segments is None for prompt in (self, other))
        return same and alone and self.docked is other.docked and self.memory is other.memory

    def first_seen(self, positions: Tensor) -> Tensor | None:
        """Return the first position that each token sees, like positions (B, t); None when that is 0."""
        return None if self.since is None else _at(self.since, positions)

    def segment(self, positions: Tensor) -> Tensor | None:
        """Return the segment of each token, like positions (B, t); None when all are in the first."""
        return None if self.segments is None else _at(self.segments, positions)

    def repeated(self, times: int) -> Prompt:
        """Return the prompts of a batch in which each row stands `times` times in turn; a source but once."""
        tensors = {
            f.name: value
            for f in fields(self)
            if f.name not in ("docked", "memory") and (value := getattr(self, f.name)) is not None
        }
        repeated: dict[str, Any] = {k: value.repeat_interleave(times, 0) for k, value in tensors.items()}
        if self.docked is not None:
            both = (self.docked.vectors, self.docked.where)
            repeated["docked"] = Docked(*(value.repeat_interleave(times, 0) for value in both))
        return replace(self, **repeated)


def _at(values: Tensor, positions: Tensor) -> Tensor:
    return values.expand(len(positions), -1).gather(1, positions.clamp_max(values.shape[1] - 1))
