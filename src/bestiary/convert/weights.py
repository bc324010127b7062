"""The weights of a loaded model under their own names: as floats, or packed as the file has them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from ..files.source import DTYPES
from ..files.writing import Planned
from ..formats import FORMATS
from ..load import FLOATS, Loaded
from ..tensors import Use
from .likeness import Change

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Weights:
    """What a model holds, whatever packs it. changes: done to tensors before they are given, by name."""

    def __init__(self, loaded: Loaded, changes: Mapping[str, Change]) -> None:
        self._model, self._changes = loaded.model, changes
        entries = loaded.checkpoint.entries
        self._stored = {
            name: entries[use.published[0]].dtype for use in loaded.match.uses for name in use.ours
        }

    def stored(self, name: str) -> str | None:
        """Return the type that the file holds a tensor in, None where it is packed in a way of its own."""
        kind = self._stored.get(name)
        return kind if kind in FLOATS or kind in FORMATS else None

    def held(self, name: str) -> Tensor:
        """Return a tensor as it is."""
        owner, leaf = self._owner(name)
        tensor: Tensor = getattr(owner, leaf).detach()
        return tensor

    def floats(self, name: str) -> Tensor:
        """Return a tensor in float32."""
        owner, leaf = self._owner(name)
        held = (
            owner.dequantize() if leaf == "weight" and hasattr(owner, "dequantize") else getattr(owner, leaf)
        )
        tensor: Tensor = held.detach().float()
        return self._changes[name](tensor) if name in self._changes else tensor

    def integers(self, name: str) -> str | None:
        """Return the type of a tensor of whole numbers, which stands for itself; None of weights."""
        owner, leaf = self._owner(name)
        if hasattr(owner, "dequantize") or getattr(owner, leaf).is_floating_point():
            return None
        return _NAMES[getattr(owner, leaf).dtype]

    def packed(self, name: str) -> Tensor | None:
        """Return the rows of a tensor as the file has them packed, uint8; None where it does not, or not
        alike."""
        owner, leaf = self._owner(name)
        if leaf != "weight" or getattr(owner, "fmt", None) is None or self.stored(name) != owner.fmt.name:
            return None
        change, rows = self._changes.get(name), owner.weight
        if change is None:
            return rows  # type: ignore[no-any-return]
        # The order of rows may change; numbers may not.
        return change(rows) if isinstance(change, partial) else None

    def _owner(self, name: str) -> tuple[Any, str]:
        path, _, leaf = name.rpartition(".")
        return self._model.get_submodule(path), leaf

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, decoded."""
        owner, leaf = self._owner(name)
        if leaf == "weight" and hasattr(owner, "in_features"):
            return owner.out_features, owner.in_features
        if leaf == "weight" and hasattr(owner, "num_embeddings"):
            return owner.num_embeddings, owner.embedding_dim
        return tuple(getattr(owner, leaf).shape)


def names(model: nn.Module) -> list[str]:
    """Return the names of a model's tensors, each once: of tied ones the first, of packed ones the
    matrix's."""
    found: list[str] = []
    seen: set[int] = set()
    for path, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        held = dict(module.named_buffers(recurse=False))
        if hasattr(module, "dequantize") and held:
            own = {"weight": next(iter(held.values())), **own}
        else:
            own |= held
        for leaf, tensor in own.items():
            if id(tensor) not in seen:
                seen.add(id(tensor))
                found.append(f"{path}.{leaf}" if path else leaf)
    return found


def planned(use: Use, weights: Weights, *, dtypes: Mapping[str, str], heads: int) -> list[Planned]:
    """Return the published tensors that hold ours, to be made when they are written.

    dtypes: the type of each, by its published name. heads: key/value heads of the attention they are in.
    """
    parts = [torch.empty(weights.shape(name), device="meta") for name in use.ours]
    shapes = [tuple(piece.shape) for piece in _cut(use, use.layout.join(parts, heads))]
    return [
        Planned(name, shape, dtypes[name], partial(_made, use, weights, dtypes[name], heads, index))
        for index, (name, shape) in enumerate(zip(use.published, shapes, strict=True))
    ]


def _cut(use: Use, whole: Tensor) -> Collection[Tensor]:
    return [whole] if len(use.published) == 1 else whole.tensor_split(len(use.published))


def _made(use: Use, weights: Weights, dtype: str, heads: int, index: int) -> Tensor:
    if weights.integers(use.ours[0]) is not None:
        return [*_cut(use, use.layout.join([weights.held(name) for name in use.ours], heads))][index]
    packed = (
        [weights.packed(name) for name in use.ours]
        if {weights.stored(n) for n in use.ours} == {dtype}
        else []
    )
    raw = [rows for rows in packed if rows is not None]
    if len(raw) == len(use.ours):
        joined = [*_cut(use, use.layout.join(raw, heads))][index]
        return joined.view(DTYPES[dtype]) if dtype in FLOATS else joined
    whole = [*_cut(use, use.layout.join([weights.floats(name) for name in use.ours], heads))][index]
    if dtype in FLOATS:
        narrow = whole.to(FLOATS[dtype])
        if dtype == "F16" and not narrow.isfinite().all():
            raise CheckpointError(
                "holds numbers that float16 does not reach",
                tensor=use.published[index],
                remedy="Write it with --type bf16 or --type f32",
            )
        return narrow
    encode = FORMATS[dtype].encode
    if encode is None:
        raise CheckpointError(f"cannot be packed as {dtype} here", tensor=use.published[index])
    if not whole.isfinite().all():
        raise CheckpointError("holds NaN or infinity, which cannot be quantised", tensor=use.published[index])
    return encode(whole)
