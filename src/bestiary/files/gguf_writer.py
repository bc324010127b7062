"""GGUF version 3, written a tensor at a time: as `gguf.read` checks it, and as llama.cpp reads it.

Spec: ggml/docs/gguf.md. Header, metadata, descriptions of tensors, padding, then the tensors, each at a
multiple of 32.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import CheckpointError
from .gguf import FIXED, LONGEST_NAME, TYPES, Array
from .paths import check_tensor_name
from .writing import Planned, Progress, make, replacing, write_tensor

_ALIGNMENT = 32
_NUMBERS = {name: number for number, name in TYPES.items()}
_U8, _U32, _I32, _F32, _BOOL, _STRING, _ARRAY, _U64, _I64 = 0, 4, 5, 6, 7, 8, 9, 10, 11


def write(
    path: str | Path,
    metadata: Mapping[str, object],
    tensors: Sequence[Planned],
    *,
    progress: Progress | None = None,
) -> None:
    """Write a GGUF file, whole or not at all, with one tensor in memory at a time.

    metadata: booleans, whole numbers, floats (stored in 32 bits), strings, `bytes` (an array of bytes), and
    lists and Arrays of one kind of these. Raises CheckpointError for a value, a name or a type that GGUF does
    not hold, and when the disk refuses.
    """
    path = Path(path)
    head = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    head += [_pair(path, key, value) for key, value in metadata.items()]
    at = 0
    for tensor in tensors:
        head.append(_described(path, tensor, at))
        at += _padded(tensor.nbytes)
    header = b"".join(head)
    header += bytes(-len(header) % _ALIGNMENT)
    total, done = sum(tensor.nbytes for tensor in tensors), 0
    with replacing(path, len(header) + at) as file:
        file.write(header)
        for tensor in tensors:
            nbytes = write_tensor(file, make(tensor))
            file.write(bytes(_padded(nbytes) - nbytes))
            done += nbytes
            if progress is not None:
                progress(done, total)


def _padded(nbytes: int) -> int:
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT


def _described(path: Path, tensor: Planned, at: int) -> bytes:
    check_tensor_name(tensor.name, file=path)
    name = tensor.name.encode()
    if len(name) > LONGEST_NAME or not 1 <= len(tensor.shape) <= 4 or tensor.dtype not in _NUMBERS:
        held = f"GGUF holds 1 to 4 dimensions, and {LONGEST_NAME} bytes of name"
        reason = f"is {tensor.dtype} {tensor.shape}; {held}"
        raise CheckpointError(reason, file=path, tensor=tensor.name)
    sizes = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *reversed(tensor.shape))
    return struct.pack("<Q", len(name)) + name + sizes + struct.pack("<IQ", _NUMBERS[tensor.dtype], at)


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _pair(path: Path, key: str, value: object) -> bytes:
    """Return a key and its value. Past 32 bits, and half of a surrogate pair, are found when packed."""
    try:
        return _string(key) + _value(path, key, value)
    except (OverflowError, UnicodeEncodeError, struct.error) as error:
        raise _refusal(path, key, value) from error


def _value(path: Path, key: str, value: object) -> bytes:
    """Return a metadata value with its type before it."""
    if isinstance(value, Array):
        return _array(value.kind, value)
    if isinstance(value, bytes):
        return _array(_U8, value)
    if isinstance(value, list | tuple):
        kinds = {_kind(path, key, item) for item in value} or {_I32}
        # Numbers in arrays have signs, as llama.cpp expects of token types.
        kinds = {_I32} if kinds <= {_U32, _I32} else kinds
        if len(kinds) > 1:
            raise _refusal(path, key, value)
        (kind,) = kinds
        return _array(kind, value)
    kind = _kind(path, key, value)
    return struct.pack("<I", kind) + _packed(kind, value)


def _array(kind: int, values: Sequence[object]) -> bytes:
    return struct.pack("<IIQ", _ARRAY, kind, len(values)) + b"".join(_packed(kind, item) for item in values)


def _packed(kind: int, value: object) -> bytes:
    return _string(str(value)) if kind == _STRING else struct.pack(f"<{FIXED[kind]}", value)


def _kind(path: Path, key: str, value: object) -> int:
    match value:
        case bool():
            return _BOOL
        case int() if -(2**63) <= value < 2**64:
            small, large = (_I32, _I64) if value < 0 else (_U32, _U64)
            return small if -(2**31) <= value < 2**32 else large
        case float():
            return _F32
        case str():
            return _STRING
    raise _refusal(path, key, value)


def _refusal(path: Path, key: str, value: object) -> CheckpointError:
    return CheckpointError(f"metadata key {key[:80]!r} = {str(value)[:80]!r} has no form in GGUF", file=path)
