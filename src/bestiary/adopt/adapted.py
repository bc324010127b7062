"""A base and its adapters make a plain model, written a tensor at a time."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from ..adapters.attach import adapted
from ..adapters.ends import ENDS
from ..adapters.weights import merged, shape
from ..errors import RequestError
from ..files.writing import Planned
from ..load import FLOATS, Loaded, published_by
from ..tensors import Use


def planned(loaded: Loaded) -> list[Planned]:
    """Return the tensors of a model with adapters, each to be merged when it is written.

    In float32, then rounded to the base's type. Raises RequestError for a base of packed integers.
    """
    entries = loaded.checkpoint.entries
    usual = next((e.dtype for e in entries.values() if len(e.shape) == 2), "F32")
    if usual not in FLOATS:
        raise RequestError(
            f"{loaded.checkpoint.path} is packed ({usual}): an adapter merged into it would be rounded away\n"
            "Try: the 16-bit base, or this one with the adapter beside it (--adapter of chat and generate)"
        )
    return [_planned(loaded, use, name, usual) for use in loaded.match.uses for name in use.published]


def _planned(loaded: Loaded, use: Use, name: str, usual: str) -> Planned:
    entry = loaded.checkpoint.entries.get(name)
    dtype = usual if entry is None else entry.dtype
    # What an adapter brought may have more rows than the file's own, or stand where it has none.
    brought = entry is None or use.ours[0] in ENDS
    size = shape(loaded.model, use.ours[0]) if brought or entry is None else entry.shape
    return Planned(name, size, dtype, partial(_make, loaded, use, name, dtype))


def _make(loaded: Loaded, use: Use, name: str, dtype: str) -> Tensor:
    """Return one published tensor: its layers are merged, and then put back as they were."""
    model = loaded.model
    paths = {ours.rpartition(".")[0] for ours in use.ours} & set(adapted(model))
    put = [(path, model.get_submodule(path)) for path in paths]
    try:
        for path, module in put:
            model.set_submodule(path, merged(path, module))
        tensor = published_by(loaded, use)[name]
    finally:
        for path, module in put:
            model.set_submodule(path, module)
    return tensor.to(FLOATS[dtype]) if dtype in FLOATS else tensor
