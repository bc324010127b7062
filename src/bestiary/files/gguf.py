"""GGUF versions 1 to 3: every count and length is checked against the bytes that are left before it is used.

Spec: ggml/docs/gguf.md. What is refused follows ggml/src/gguf.cpp and its tests; numbers are Python's and do
not wrap. Long arrays stay in the file until they are asked for: a vocabulary has 50,000 to 250,000 strings.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn, overload

import torch

from ..formats import FORMATS
from .entries import Entry
from .paths import check_tensor_name, resolve
from .source import DAMAGED, DTYPES, Source, element_count

# ggml/include/ggml.h, enum ggml_type. Plain types and those of FORMATS are read, others refused by name.
TYPES: Final[Mapping[int, str]] = dict(
    enumerate(
        """
        F32 F16 Q4_0 Q4_1 Q4_2 Q4_3 Q5_0 Q5_1 Q8_0 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K
        IQ2_XXS IQ2_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S IQ2_S IQ4_XS I8 I16 I32 I64 F64 IQ1_M BF16
        Q4_0_4_4 Q4_0_4_8 Q4_0_8_8 TQ1_0 TQ2_0 IQ4_NL_4_4 IQ4_NL_4_8 IQ4_NL_8_8 MXFP4 NVFP4 Q1_0
        """.split()
    )
)
_PLAIN = ("F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64")

# Types of metadata values, and how struct spells those of fixed size.
FIXED: Final[Mapping[int, str]] = {**dict(enumerate("BbHhIif?")), 10: "Q", 11: "q", 12: "d"}
_UINT32, _STRING, _ARRAY = 4, 8, 9

_OLDER = {b"lmgg": "GGML", b"fmgg": "GGMF", b"tjgg": "GGJT", b"algg": "GGLA"}
_LONGEST_KEY, LONGEST_NAME, _LONGEST_TEXT = 65535, 63, 64 << 20
_MOST_DIMS, _MOST_COUNTED = 4, 65536  # dimensions of a tensor; tensors, and keys
_SHORT = 256  # arrays up to this length are decoded at once, to plain lists
_CONVERT = "Convert the model again with a current convert_hf_to_gguf.py, or ask for another file"
_REQUANTISE = f"Re-quantise the model to one of {', '.join(dict.fromkeys((*_PLAIN[:3], *FORMATS)))}"
_SPLIT = re.compile(r"(?P<stem>.+)-(?P<at>\d{5})-of-(?P<of>\d{5})\.gguf")

_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


def read(source: Source) -> tuple[dict[str, Entry], dict[str, object]]:
    """Return the tensors of a GGUF file and its metadata. Raises CheckpointError.

    Metadata values are numbers, booleans, strings and arrays: a list up to 256 elements, an `Array` beyond.
    """
    reader = _Reader(source)
    tensors, keys = reader.header()
    metadata: dict[str, object] = {}
    for _ in range(keys):
        began = reader.at
        key = reader.string("metadata key", _LONGEST_KEY)
        if not key.isprintable() or not key or key in metadata:
            reader.refuse(f"metadata key {key[:80]!r} is empty, unprintable or there twice", began)
        metadata[key] = reader.value(key, reader.number(_U32))
    infos = [reader.tensor_info() for _ in range(tensors)]
    start = -reader.at % reader.alignment + reader.at
    entries: dict[str, Entry] = {}
    expected = 0
    for began, name, shape, type_name, offset in infos:
        entry = _entry(source, began, name, shape, type_name, start + offset)
        _check_place(source, entry, offset, expected)
        if name in entries:
            raise source.error("is there twice", tensor=name, offset=began)
        entries[name] = entry
        expected = offset + entry.nbytes + -entry.nbytes % reader.alignment
    return entries, metadata


def read_split(path: Path) -> tuple[dict[str, Entry], dict[str, object], list[Source]]:
    """Return the tensors of a GGUF file, its metadata and the open files: with the other parts of a split.

    Raises CheckpointError, also for a part that is missing, or opened in place of the first.
    """
    source = Source.open(path)
    entries, metadata = read(source)
    sources = [source]
    parts, at = metadata.get("split.count", 1), metadata.get("split.no", 0)
    if type(parts) is not int or type(at) is not int or parts <= 1:
        return entries, metadata, sources
    name = _SPLIT.fullmatch(path.name)
    if name is None or at != 0 or int(name["at"]) != 1 or int(name["of"]) != parts:
        remedy = f"Open the file that ends in -00001-of-{parts:05}.gguf, under its published name"
        raise source.error(f"is part {at + 1} of {parts} of a split model", remedy=remedy)
    for part in range(2, parts + 1):
        other = Source.open(resolve(path.parent, f"{name['stem']}-{part:05}-of-{parts:05}.gguf"))
        sources.append(other)
        found, _ = read(other)
        if twice := entries.keys() & found.keys():
            raise other.error("is in two parts of the split", tensor=min(twice))
        entries |= found
    total = metadata.get("split.tensors.count", len(entries))
    if type(total) is not int or total != len(entries):
        raise source.error(f"split.tensors.count is not {len(entries)}, the tensors that the parts hold")
    return entries, metadata, sources


def is_later_part(name: str) -> bool:
    """Tell whether a file name is that of a split's part other than the first."""
    part = _SPLIT.fullmatch(name)
    return part is not None and int(part["at"]) != 1


class Array(Sequence[Any]):
    """A long array of a file's metadata: decoded as a whole when the first of its elements is asked for.

    Raises CheckpointError then, for strings that are not UTF-8.
    """

    def __init__(
        self, source: Source, key: str, kind: int, count: int, start: int, end: int, length: struct.Struct
    ):
        self._source, self._key, self.kind, self._count = source, key, kind, count
        self._start, self._end, self._length = start, end, length
        self._values: list[Any] | None = None

    def decoded(self) -> list[Any]:
        """Return all elements."""
        if self._values is None:
            raw = bytes(self._source.data[self._start : self._end])
            if self.kind == _STRING:
                self._values = self._strings(raw)
            else:
                self._values = list(struct.unpack(f"<{self._count}{FIXED[self.kind]}", raw))
        return self._values

    def _strings(self, raw: bytes) -> list[str]:
        unpack, width, at = self._length.unpack_from, self._length.size, 0
        values: list[str] = []
        try:
            for _ in range(self._count):
                begin = at + width
                at = begin + unpack(raw, at)[0]
                values.append(raw[begin:at].decode())
        except UnicodeDecodeError as error:
            reason = f"string {len(values)} of {self._key!r} is not UTF-8 text"
            raise self._source.error(reason, offset=self._start + begin) from error
        return values

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        return iter(self.decoded())

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return self.decoded()[index]

    def __repr__(self) -> str:
        return f"<array of {self._count:,} in {self._key!r}>"


class _Reader:
    """A position in a file's header."""

    def __init__(self, source: Source) -> None:
        self.source, self.data, self.at = source, source.data, 0
        self.length = _U64
        self.alignment = 32

    def refuse(self, reason: str, offset: int, remedy: str = DAMAGED) -> NoReturn:
        raise self.source.error(reason, offset=offset, remedy=remedy)

    def header(self) -> tuple[int, int]:
        """Return how many tensors and metadata keys follow."""
        magic = bytes(self.data[:4])
        if magic != b"GGUF":
            older = f"a {_OLDER[magic]} file, older than GGUF" if magic in _OLDER else "no GGUF file"
            self.refuse(f"is {older}: it begins with {magic!r}", 0, _CONVERT)
        self.at = 4
        version = self.number(_U32)
        if version & 0xFFFF == 0 and version:
            self.refuse("is a big-endian GGUF file", 4, _CONVERT)
        if not 1 <= version <= 3:
            self.refuse(f"is of GGUF version {version}; 1 to 3 are read", 4, _CONVERT)
        # Version 1 had 32-bit counts, lengths and dimensions; 3 is 2 with a word on byte order.
        self.length = _U32 if version == 1 else _U64
        width = self.length.size
        counts = self.number(self.length), self.number(self.length)
        for count, least, what in zip(counts, (2 * width + 16, width + 6), ("tensors", "keys"), strict=True):
            if count > (most := min(_MOST_COUNTED, (self.source.size - self.at) // least)):
                self.refuse(f"a count of {count:,} {what}, where {most:,} can be", 8)
        return counts

    def number(self, kind: struct.Struct) -> int:
        if kind.size > self.source.size - self.at:
            self.refuse("the header is cut", self.at)
        self.at += kind.size
        return int(kind.unpack_from(self.data, self.at - kind.size)[0])

    def string(self, what: str, limit: int) -> str:
        began, length = self.at, self.number(self.length)
        if length > (most := min(limit, self.source.size - self.at)):
            self.refuse(f"a {what} of {length:,} bytes, where {most:,} can be", began)
        self.at += length
        try:
            return str(self.data[self.at - length : self.at], "utf-8")
        except UnicodeDecodeError:
            self.refuse(f"a {what} that is not UTF-8", began)

    def value(self, key: str, kind: int) -> object:
        began = self.at
        if key == "general.alignment":
            self.alignment = self.number(_U32) if kind == _UINT32 else 0
            if self.alignment & (self.alignment - 1) or not self.alignment:
                self.refuse("general.alignment is no power of two of type uint32", began)
            return self.alignment
        if kind == _STRING:
            return self.string("text", _LONGEST_TEXT)
        if kind == _ARRAY:
            array = self.array(key)
            return array.decoded() if len(array) <= _SHORT else array
        if kind not in FIXED:
            self.refuse(f"metadata key {key[:80]!r} has the unknown type {kind}", began)
        fixed = struct.Struct(f"<{FIXED[kind]}")
        if fixed.size > self.source.size - self.at:
            self.refuse("the header is cut", began)
        self.at += fixed.size
        return fixed.unpack_from(self.data, began)[0]

    def array(self, key: str) -> Array:
        began = self.at
        kind, count = self.number(_U32), self.number(self.length)
        if kind != _STRING and kind not in FIXED:
            what = "arrays, which are not nested" if kind == _ARRAY else f"the unknown type {kind}"
            self.refuse(f"metadata key {key[:80]!r} is an array of {what}", began)
        start = self.at
        least = self.length.size if kind == _STRING else struct.calcsize(FIXED[kind])
        if count > (self.source.size - start) // least:
            self.refuse(f"metadata key {key[:80]!r} is an array of {count:,}: the file is too short", began)
        self.at = self.skip_strings(count) if kind == _STRING else start + count * least
        return Array(self.source, key, kind, count, start, self.at, self.length)

    def skip_strings(self, count: int) -> int:
        """Return where `count` strings end. A vocabulary passes through here: nothing is built."""
        unpack, width, at = self.length.unpack_from, self.length.size, self.at
        data, last = self.data, self.source.size - self.length.size
        for _ in range(count):
            if at > last:
                self.refuse("an array of strings runs past the end of the file", self.at)
            at += width + unpack(data, at)[0]
        if at > self.source.size:
            self.refuse("an array of strings runs past the end of the file", self.at)
        return at

    def tensor_info(self) -> tuple[int, str, tuple[int, ...], str, int]:
        """Return where a tensor's description begins, its name, shape in torch's order, type and offset."""
        began = self.at
        name = self.string("tensor name", LONGEST_NAME)
        check_tensor_name(name, file=self.source.path, offset=began)
        dims = self.number(_U32)
        if not 1 <= dims <= _MOST_DIMS:
            raise self.source.error(
                f"has {dims} dimensions, not 1 to {_MOST_DIMS}", tensor=name, offset=began
            )
        shape = tuple(self.number(self.length) for _ in range(dims))[::-1]
        kind = self.number(_U32)
        if kind not in TYPES:
            reason = f"has the unknown type {kind}"
            raise self.source.error(reason, tensor=name, offset=began, remedy=_REQUANTISE)
        return began, name, shape, TYPES[kind], self.number(_U64)


def _entry(source: Source, began: int, name: str, shape: tuple[int, ...], kind: str, offset: int) -> Entry:
    if kind not in _PLAIN and kind not in FORMATS:
        reason = f"is of type {kind}, which is not read here"
        raise source.error(reason, tensor=name, offset=began, remedy=_REQUANTISE)
    if element_count(shape) is None:
        raise source.error(f"has the shape {shape}, past what memory can address", tensor=name, offset=began)
    if kind in _PLAIN:
        dtype, held = DTYPES[kind], shape
    else:
        fmt = FORMATS[kind]
        if shape[-1] % fmt.block:
            reason = f"has rows of {shape[-1]} elements, no multiple of the {fmt.block} in a block of {kind}"
            raise source.error(reason, tensor=name, offset=began)
        dtype, held = torch.uint8, (*shape[:-1], shape[-1] // fmt.block * fmt.nbytes)
    nbytes = math.prod(held) * dtype.itemsize
    return Entry(name, shape, kind, source.path, offset, nbytes, partial(source.tensor, dtype, held, offset))


def _check_place(source: Source, entry: Entry, offset: int, expected: int) -> None:
    """Refuse a tensor that does not follow the one before, padded to the alignment, or ends past the file."""
    if offset != expected:
        what = "overlaps the tensor before it" if offset < expected else "leaves a hole before it"
        reason = f"begins at {offset} in the data and not at {expected}: it {what}"
    elif entry.offset + entry.nbytes > source.size:
        reason = f"ends at byte {entry.offset + entry.nbytes:,} of a file of {source.size:,}: the file is cut"
    else:
        return
    raise source.error(reason, tensor=entry.name, offset=entry.offset)
