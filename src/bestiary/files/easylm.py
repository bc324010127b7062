"""EasyLM's streams of parameters: how koala was published. One MessagePack pair after another: path, array.

Layout: young-geng/EasyLM, checkpoint.py (StreamingCheckpointer); flax/serialization.py, whose arrays are an
extension of code 1, and in it a triple of shape, type and bytes; https://github.com/msgpack/msgpack, spec.md.
Of MessagePack only that is read. Lengths are checked against the bytes that are left before they are used.
"""

from __future__ import annotations

from functools import partial

from .entries import Entry
from .paths import check_tensor_name
from .source import DTYPES, MOST_DIMS, Source, element_count

_REMEDY = "Only streams of arrays are read here; save the model again, without its optimizer"
_TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_MOST_PARTS, _MOST_TEXT = 64, 255
# First byte -> how many bytes of length follow it. What packed with msgpack < 1.0 has texts for bytes.
_TEXT, _BYTES = {0xD9: 1, 0xDA: 2, 0xDB: 4}, {0xC4: 1, 0xC5: 2, 0xC6: 4}
_ARRAY, _EXTENSION = {0xDC: 2, 0xDD: 4}, {0xC7: 1, 0xC8: 2, 0xC9: 4}
_FIXED = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_WHOLE = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}


def is_stream(source: Source) -> bool:
    """Tell whether a file begins as a pair whose first is a list of texts."""
    begin = bytes(source.data[:3])
    return len(begin) == 3 and begin[0] == 0x92 and begin[1] >> 4 == 9 and begin[2] >> 5 == 5


def read(source: Source) -> tuple[dict[str, Entry], dict[str, object]]:
    """Return the arrays of a stream by their paths, joined by slashes. Raises CheckpointError."""
    entries: dict[str, Entry] = {}
    at = 0
    while at < source.size:
        begin, pair = at, _Reader(source, at, source.size)
        if pair.array() != 2:
            raise source.error("holds no pair of a path and an array", offset=at, remedy=_REMEDY)
        name = "/".join(pair.text() for _ in range(pair.count(_MOST_PARTS)))
        check_tensor_name(name, file=source.path, offset=at)
        at, end = pair.bytes()
        if name in entries:
            raise source.error("is there twice", tensor=name, offset=begin)
        entries[name] = _entry(source, name, at, end)
        at = end
    return entries, {}


def _entry(source: Source, name: str, at: int, end: int) -> Entry:
    """Return the array that bytes of the file hold."""
    outer = _Reader(source, at, end, name)
    array = _Reader(source, *outer.extension(), name)
    if outer.at != end:
        raise outer.error("has bytes after its array")
    if array.array() != 3:
        raise array.error("is no shape, type and bytes")
    shape = tuple(array.whole() for _ in range(array.count(MOST_DIMS)))
    said = array.text()
    if said not in _TYPES:
        raise array.error(f"holds numbers of type {said[:40]!r}; known: {', '.join(_TYPES)}")
    dtype, (begin, stop) = _TYPES[said], array.bytes()
    count = element_count(shape)
    if count is None or count * DTYPES[dtype].itemsize != stop - begin:
        raise array.error(
            f"of shape {list(shape)} and {said} does not take the {stop - begin:,} bytes it has"
        )
    if stop != end:
        raise array.error("has bytes after its array")
    load = partial(source.tensor, DTYPES[dtype], shape, begin)
    return Entry(name, shape, dtype, source.path, begin, stop - begin, load)


class _Reader:
    """A place in a file, and what of MessagePack is expected there, up to `end`."""

    def __init__(self, source: Source, at: int, end: int, name: str | None = None) -> None:
        self.source, self.at, self.end, self.name = source, at, end, name

    def error(self, reason: str) -> Exception:
        return self.source.error(reason, tensor=self.name, offset=self.at, remedy=_REMEDY)

    def array(self) -> int:
        """Return how many values follow as a list."""
        first = self._byte()
        return first & 15 if first >> 4 == 9 else self._length(_ARRAY, first, "a list")

    def count(self, most: int) -> int:
        """Return how many values follow as a list, `most` at most."""
        count = self.array()
        if count > most:
            raise self.error(f"has a list of {count:,} values where {most} at most should be")
        return count

    def text(self) -> str:
        """Return a short text."""
        first = self._byte()
        length = first & 31 if first >> 5 == 5 else self._length(_TEXT, first, "a text")
        if length > _MOST_TEXT:
            raise self.error(f"has a text of {length:,} bytes where a short one should be")
        begin, end = self._span(length)
        try:
            return bytes(self.source.data[begin:end]).decode()
        except UnicodeDecodeError:
            raise self.error("has a text that is not UTF-8") from None

    def whole(self) -> int:
        """Return a number that is not below zero."""
        first = self._byte()
        return first if first < 0x80 else self._length(_WHOLE, first, "a size")

    def bytes(self) -> tuple[int, int]:
        """Return where bytes begin and end."""
        first = self._byte()
        if first >> 5 == 5:
            return self._span(first & 31)
        return self._span(self._length(_BYTES | _TEXT, first, "bytes"))

    def extension(self) -> tuple[int, int]:
        """Return where an array's bytes begin and end."""
        first = self._byte()
        length = _FIXED.get(first) or self._length(_EXTENSION, first, "an array in one piece")
        if (code := self._byte()) != 1:
            raise self.error(f"is an extension of code {code}, and that of arrays is 1")
        return self._span(length)

    def _length(self, kinds: dict[int, int], first: int, wanted: str) -> int:
        if first not in kinds:
            raise self.error(
                f"has no {wanted.removeprefix('a ').removeprefix('an ')} where {wanted} should be"
            )
        begin, end = self._span(kinds[first])
        return int.from_bytes(self.source.data[begin:end], "big")

    def _byte(self) -> int:
        begin, _ = self._span(1)
        return self.source.data[begin]

    def _span(self, length: int) -> tuple[int, int]:
        """Return where the next bytes begin and end, and pass them over."""
        begin = self.at
        if length > self.end - begin:
            raise self.error(f"is cut: {length:,} bytes should follow, and there are {self.end - begin:,}")
        self.at = begin + length
        return begin, self.at
