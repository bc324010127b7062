"""Folders of pickled arrays, one a file: how xAI released Grok-1, read as data and without unpickling.

A file is a NumPy array, or 8-bit integers and their scales under the name `__main__.QuantizedWeight8bit`
(xai-org/grok-1, checkpoint.py and model.py). Its bytes are looked at where they lie: a tensor of 1.6 GB is a
view of the file's map until it is asked for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import CheckpointError
from . import pickles
from .entries import Entry
from .paths import resolve
from .pickles import Attributes, BuildError, Maker, Name, Span, Stateful
from .source import DTYPES, Source, element_count

_FILE = re.compile(r"tensor\d{5}_000")  # the number after the line is the host's that wrote it: there was one
_MOST_FILES = 20_000
_TYPES = {"f2": "F16", "f4": "F32", "i1": "I8"}
_BFLOAT16 = "ml_dtypes.bfloat16"


def is_folder(path: Path) -> bool:
    """Tell whether a path is a folder with a file that this module reads."""
    return bool(_names(path))


def read(folder: Path) -> tuple[dict[str, Entry], dict[str, object], list[Source]]:
    """Return a folder's tensors by the names of their files, no metadata, and the open files.

    Raises CheckpointError: for a gap in the numbers, and for a file that is no array, or not of its size.
    """
    names = _names(folder)
    if len(names) > _MOST_FILES:
        raise CheckpointError(f"holds more than {_MOST_FILES:,} files", file=folder, remedy=pickles.REMEDY)
    for number, name in enumerate(names):
        if name != (wanted := f"tensor{number:05d}_000"):
            raise CheckpointError(f"lacks {wanted}", file=folder, remedy="Download the folder again, whole")
    sources = [Source.open(resolve(folder, name)) for name in names]
    return {source.path.name: entry(source) for source in sources}, {}, sources


def _names(folder: Path) -> list[str]:
    try:
        return sorted(each.name for each in os.scandir(folder) if _FILE.fullmatch(each.name))
    except (OSError, ValueError):  # no folder, or a path that no file can have
        return []


@dataclass
class _Type(Stateful):
    """numpy.dtype: the letters of its name, and little-endian."""

    dtype: str

    def take(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", "|", "="):
            raise BuildError("an array's numbers are not little-endian")


@dataclass
class _Array(Stateful):
    """numpy.ndarray: what its state says, and where its bytes lie."""

    dtype: str = ""
    shape: tuple[int, ...] = ()
    offset: int = 0
    nbytes: int = 0

    def take(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise BuildError("an array has not the state of one")
        _, shape, dtype, fortran, data = state
        if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
            raise BuildError("an array's shape is no list of sizes")
        if fortran is not False or not isinstance(dtype, _Type) or not isinstance(data, Span):
            raise BuildError("an array's numbers do not lie row by row in the file")
        count = element_count(shape)
        if count is None or count * DTYPES[dtype.dtype].itemsize != data.nbytes:
            what = f"an array of {dtype.dtype}, of shape {shape[:16]}"
            raise BuildError(f"{what}, does not take the {data.nbytes:,} bytes that it has")
        self.dtype, self.shape, self.offset, self.nbytes = dtype.dtype, shape, data.offset, data.nbytes


class _Quantised(Attributes):
    """QuantizedWeight8bit: its `weight` and its `scales`."""


def _array(arguments: tuple[Any, ...]) -> _Array:
    return _Array()


def _type(arguments: tuple[Any, ...]) -> _Type:
    code = arguments[0] if arguments else None
    if isinstance(code, Name) and code.text == _BFLOAT16:
        return _Type("BF16")
    if not isinstance(code, str) or code not in _TYPES:
        raise BuildError(f"numbers of type {str(code)[:40]!r} are no weights")
    return _Type(_TYPES[code])


def _quantised(arguments: tuple[Any, ...]) -> _Quantised:
    return _Quantised()


# All that a file may name. Makers build the values; None: the name stands for a type and is never called.
_NAMES: Mapping[str, Maker | None] = {
    "numpy.core.multiarray._reconstruct": _array,
    "numpy._core.multiarray._reconstruct": _array,
    "numpy.ndarray": None,
    "numpy.dtype": _type,
    _BFLOAT16: None,
    "__main__.QuantizedWeight8bit": _quantised,
    "model.QuantizedWeight8bit": _quantised,
}


def entry(source: Source) -> Entry:
    """Return the tensor of one file, under the file's name. Raises CheckpointError."""
    value, stop = pickles.load(source, 0, source.size, names=_NAMES, spans=True)
    if stop != source.size:
        raise source.error("bytes follow the end of the pickle", offset=stop)
    if isinstance(value, _Array):
        load = partial(source.tensor, DTYPES[value.dtype], value.shape, value.offset)
        return Entry(
            source.path.name, value.shape, value.dtype, source.path, value.offset, value.nbytes, load
        )
    weight, scales = _parts(source, value)
    load = partial(_dequantised, source, weight, scales)
    # float32 holds the product of 8 bits and a scale of bfloat16 exactly.
    return Entry(source.path.name, weight.shape, "F32", source.path, weight.offset, weight.nbytes, load)


def _parts(source: Source, value: object) -> tuple[_Array, _Array]:
    """Return the integers and the scales of a quantised weight, which fit each other."""
    parts = (value.get("weight"), value.get("scales")) if isinstance(value, _Quantised) else (None, None)
    weight, scales = parts
    if not isinstance(weight, _Array) or not isinstance(scales, _Array):
        raise source.error("is neither an array nor a quantised one", remedy=pickles.REMEDY)
    fits = (
        len(weight.shape) == len(scales.shape) >= 2
        and (*weight.shape[:-2], weight.shape[-1]) == (*scales.shape[:-2], scales.shape[-1])
        and scales.shape[-2] > 0
        and weight.shape[-2] % scales.shape[-2] == 0
    )
    if weight.dtype != "I8" or scales.dtype not in ("F32", "BF16") or not fits:
        of_scales = f"scales of {scales.dtype} and shape {scales.shape}"
        raise source.error(f"{weight.dtype} of shape {weight.shape} do not go with {of_scales}")
    return weight, scales


def _dequantised(source: Source, weight: _Array, scales: _Array) -> Tensor:
    """Return integers (..., in, out) times scales (..., groups, out), float32: a group is a run of `in`."""
    integers, factors = (source.tensor(DTYPES[a.dtype], a.shape, a.offset) for a in (weight, scales))
    count = scales.shape[-2]
    groups: Tensor = integers.unflatten(-2, (count, weight.shape[-2] // count)).float()
    return groups.mul_(factors.float()[..., :, None, :]).flatten(-3, -2)
