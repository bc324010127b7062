"""safetensors: the format's own rules, checked before a byte of data is trusted, and an atomic writer.

Format: https://github.com/huggingface/safetensors#format. Eight bytes of header length, a JSON header, then
the tensors' bytes without a gap. The library reads duplicate names (the last wins) and headers that do not
begin with `{`, against its own specification; so the header is parsed here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import CheckpointError
from . import strict_json
from .entries import Entry
from .paths import check_tensor_name
from .source import DTYPES, Source, element_count
from .writing import Planned, make, replacing, write_tensor

HEADER_LIMIT = 100_000_000
_MOST_PARTS = 2_000_000  # some sixteen a tensor; more would take gigabytes to parse
_FIELDS = {"dtype", "shape", "data_offsets"}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def read(source: Source) -> tuple[dict[str, Entry], dict[str, str]]:
    """Return the tensors of a safetensors file and its `__metadata__`. Raises CheckpointError."""
    start, header = _header(source)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise source.error("__metadata__ is no object of strings", offset=8)
    entries = {name: _entry(source, start, name, value) for name, value in header.items()}
    _check_cover(source, start, entries)
    return entries, metadata


def _header(source: Source) -> tuple[int, dict[str, Any]]:
    """Return where the data begin, and the parsed header."""
    length = int.from_bytes(source.data[:8], "little")
    if source.size < 10 or not 2 <= length <= min(source.size - 8, HEADER_LIMIT):
        most = min(max(source.size - 8, 0), HEADER_LIMIT)
        raise source.error(
            f"no safetensors file, or cut: its header has {length:,} of {most:,} bytes", offset=0
        )
    raw = bytes(source.data[8 : 8 + length])
    if not raw.startswith(b"{"):
        raise source.error("no safetensors file: its header does not begin with '{'", offset=8)
    try:
        header = strict_json.parse(raw, parts=_MOST_PARTS)
    except strict_json.InvalidJSONError as fault:
        raise source.error(
            f"the header is refused: {fault.reason}", offset=8 + (fault.offset or 0)
        ) from fault
    return 8 + length, header


def _entry(source: Source, start: int, name: str, value: object) -> Entry:
    check_tensor_name(name, file=source.path, offset=8)
    if not isinstance(value, dict) or value.keys() != _FIELDS:
        raise source.error("its entry is not just dtype, shape and data_offsets", tensor=name, offset=8)
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        remedy = f"Ask for a version of the model in one of {', '.join(DTYPES)}"
        raise source.error(f"type {str(dtype)[:40]!r} is not known", tensor=name, offset=8, remedy=remedy)
    if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2:
        raise source.error("shape or data_offsets are no lists of sizes", tensor=name, offset=8)
    begin, end = offsets
    if (numel := element_count(tuple(shape))) is None:
        raise source.error(f"shape {str(shape)[:80]} is past what memory can address", tensor=name, offset=8)
    if end - begin != (nbytes := numel * DTYPES[dtype].itemsize):
        reason = f"shape {shape} of {dtype} takes {nbytes:,} bytes, data_offsets give {end - begin:,}"
        raise source.error(reason, tensor=name, offset=start + begin)
    load = partial(source.tensor, DTYPES[dtype], tuple(shape), start + begin)
    return Entry(name, tuple(shape), dtype, source.path, start + begin, nbytes, load)


def _sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _check_cover(source: Source, start: int, entries: Mapping[str, Entry]) -> None:
    """Refuse overlaps, holes and bytes that no tensor owns: nothing can hide in the file."""
    at, last = start, None
    for entry in sorted(entries.values(), key=lambda e: (e.offset, e.nbytes)):
        if entry.offset != at:
            what = "overlaps" if entry.offset < at else "leaves a hole after"
            reason = f"begins at byte {entry.offset}, and {what} {last!r}, which ends at byte {at}"
            raise source.error(reason, tensor=entry.name, offset=entry.offset)
        at, last = entry.offset + entry.nbytes, entry.name
    if at != source.size:
        what = "is cut" if at > source.size else "has bytes that belong to no tensor"
        raise source.error(f"{what}: tensors end at byte {at:,} of {source.size:,}", tensor=last, offset=at)


def write(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors to a safetensors file, whole or not at all.

    They go to a temporary file beside it, which is synced to disk and then takes the name; on failure it is
    removed and what was there before stays. Tensors may be views of the very file that is replaced. Raises
    CheckpointError for a type that safetensors has no name for, and when the disk refuses.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _NAMES:
            raise CheckpointError(f"safetensors has no name for {tensor.dtype}", file=path, tensor=name)
    planned = [
        Planned(name, tuple(tensor.shape), _NAMES[tensor.dtype], partial(_itself, tensor))
        for name, tensor in tensors.items()
    ]
    write_planned(path, planned, metadata)


def write_planned(
    path: str | Path,
    tensors: Iterable[Planned],
    metadata: Mapping[str, str] | None = None,
    *,
    written: Callable[[int], None] | None = None,
) -> None:
    """Write tensors that are made one at a time, as `write` does. written: told the bytes of each."""
    path = Path(path)
    # Large elements first, so that all stay aligned.
    ordered = sorted(tensors, key=lambda tensor: (-DTYPES[tensor.dtype].itemsize, tensor.name))
    header = _encode_header(path, ordered, metadata)
    with replacing(path, len(header) + sum(tensor.nbytes for tensor in ordered)) as file:
        file.write(header)
        for tensor in ordered:
            nbytes = write_tensor(file, make(tensor))
            if written is not None:
                written(nbytes)


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _encode_header(path: Path, tensors: Iterable[Planned], metadata: Mapping[str, str] | None) -> bytes:
    header: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    at = 0
    for tensor in tensors:
        check_tensor_name(tensor.name, file=path)
        end = at + tensor.nbytes
        entry = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [at, end]}
        header[tensor.name], at = entry, end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
