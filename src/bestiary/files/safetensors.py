"""safetensors: the format's own rules, checked before a byte of data is trusted, and an atomic writer.

Format: https://github.com/huggingface/safetensors#format. Eight bytes of header length, a JSON header, then
the tensors' bytes without a gap. The library reads duplicate names (the last wins) and headers that do not
begin with `{`, against its own specification; so the header is parsed here.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from ..errors import CheckpointError
from . import strict_json
from .entries import Entry
from .paths import check_tensor_name
from .source import DTYPES, Source, element_count

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
    path = Path(path)
    # Large elements first, so that all stay aligned.
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header = _encode_header(path, {name: tensors[name] for name in names}, metadata)
    try:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            with temporary.open("xb") as file:
                file.write(header)
                for name in names:
                    _write_tensor(file, tensors[name])
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(path.parent)
    except OSError as error:
        remedy = "Make room or choose another folder; what was there before is unchanged"
        raise CheckpointError(f"cannot be written: {error.strerror}", file=path, remedy=remedy) from error


def _encode_header(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None) -> bytes:
    header: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    at = 0
    for name, tensor in tensors.items():
        check_tensor_name(name, file=path)
        if tensor.dtype not in _NAMES:
            raise CheckpointError(f"safetensors has no name for {tensor.dtype}", file=path, tensor=name)
        end = at + tensor.numel() * tensor.dtype.itemsize
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write_tensor(file: BinaryIO, tensor: Tensor) -> None:
    whole = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    nbytes = whole.numel() * whole.dtype.itemsize
    if nbytes:
        # Not every type has a numpy twin; every tensor has an address. `whole` lives until the write is done.
        file.write((ctypes.c_ubyte * nbytes).from_address(whole.data_ptr()))


def _sync_folder(folder: Path) -> None:
    """Make the new name durable: without this a power cut can bring the old file back, or none."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
