"""The shapes of published checkpoints and the memory that their steps take, without building them.

shapes.json holds one row for each of sizes.toml. tools/shapes.py derives it: it builds each checkpoint on
`meta` and runs it there, and a test compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Self

FILE = "shapes.json"
# The tiles that one thread of PyTorch's fused attention on a CPU works in: queries by how many there are, and
# keys (aten/src/ATen/native/cpu/FlashAttentionKernel.cpp).
_QUERIES = ((768, 256), (192, 64), (0, 32))
_KEYS = 512
_FLOAT32 = 4


@dataclass(frozen=True)
class Moment:
    """Bytes alive after an operation: a polynomial in the tokens computed at once and the keys they see.

    channels: of a head, where it is within fused attention.
    """

    fixed: int
    token: int
    key: int
    pair: int
    square: int
    channels: int = 0

    def nbytes(self, tokens: int, keys: int, *, threads: int) -> int:
        """How many bytes, with the tiles of every thread."""
        made = self.fixed + self.token * tokens + self.key * keys + self.pair * tokens * keys
        return made + self.square * tokens**2 + threads * _tile(tokens, keys, self.channels)


def _tile(queries: int, keys: int, channels: int) -> int:
    if not channels:
        return 0
    rows = min(queries, next(size for least, size in _QUERIES if queries >= least))
    return _FLOAT32 * rows * (min(keys, _KEYS) + 2 + channels)


@dataclass(frozen=True)
class Shape:
    """One model's sizes, in parameters, channels and bytes.

    kind: decoder, encoder or encoder-decoder. whole: prompts are computed in one piece, as one must be that
    all of its tokens see. params: tied ones once. matrices: those of them in linears and embeddings, which
    may be packed; odd: those whose rows are no multiple of 32, which stay in 16 bits; largest: of one matrix.
    read: those that one more token needs. cache: channels of keys and values that a token leaves. experts:
    how many of a layer, and chosen: how many of them for a token. context: published, in tokens. adapters:
    parameters of a LoRA of rank 16 on every linear layer but those of experts.

    step: the moments of a step in float32; half: in 16 bits. full and lora: those of a step of training in
    float32, on rows of so many tokens, gradients in.
    """

    kind: str
    whole: bool
    params: int
    matrices: int
    odd: int
    largest: int
    read: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    feedforward: int
    vocabulary: int
    cache: int
    window: int | None
    experts: int | None
    chosen: int | None
    context: int | None
    adapters: int
    step: tuple[Moment, ...]
    half: tuple[Moment, ...]
    full: tuple[Moment, ...]
    lora: tuple[Moment, ...]

    @classmethod
    def read_from(cls, row: Mapping[str, Any]) -> Self:
        """Read what `row` returns."""
        moments = {key: tuple(Moment(*one) for one in row[key]) for key in ("step", "half", "full", "lora")}
        return cls(**{**row, **moments})

    def row(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        moments = {
            key: [list(asdict(one).values()) for one in getattr(self, key)]
            for key in ("step", "half", "full", "lora")
        }
        return {**{key: value for key, value in vars(self).items() if key not in moments}, **moments}


@cache
def shape(id: str) -> Shape | None:
    """Return the shape of a checkpoint of sizes.toml; None for one that is not there."""
    row = _rows().get(id)
    return None if row is None else Shape.read_from(row)


@cache
def _rows() -> Mapping[str, dict[str, Any]]:
    found = json.loads((files(__package__) / FILE).read_text("utf-8"))
    return {id: row["shape"] for row in found for id in row["ids"]}
