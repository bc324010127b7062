"""SentencePiece's .model file: a protobuf, read with every length checked, and written again for the library.

The library parses what it is given in C++, where a crafted file has cost memory safety before
(CVE-2026-1260). It never sees a stranger's bytes: `read` takes out what counts at run time, checks it, and
`ModelProto.write` makes a new message of it. GGUF's embedded vocabularies come the same way. Field numbers
are those of sentencepiece_model.proto.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ..errors import TokenizerError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
UNIGRAM, BPE = 1, 2

_MOST_PIECES = 4 << 20
_LONGEST_PIECE = 4096  # the longest published one has 512 bytes
_LONGEST_REPLACEMENT = 256  # NFKC's longest, of U+FDFA, has 33 bytes
_PIECE, _TRAINER, _NORMALIZER, _SELF_TEST, _DENORMALIZER = 0x0A, 0x12, 0x1A, 0x22, 0x2A
_BYTES = {f"<0x{byte:02X}>": byte for byte in range(256)}


@dataclass
class ModelProto:
    """What a SentencePiece model computes with. types: NORMAL ... BYTE of each piece."""

    pieces: list[str]
    scores: list[float]
    types: list[int]
    algorithm: int = UNIGRAM  # the message's own default
    byte_fallback: bool = False
    suffix: bool = False
    unk_surface: str = " \u2047 "
    bos_piece: str = "<s>"
    eos_piece: str = "</s>"
    charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True
    unknown: int = field(init=False, default=-1)

    def check(self) -> None:
        """Make sure that the library can take the model, and set `unknown`.

        Raises TokenizerError: no piece for the unknown or several, a piece that is empty, too long or there
        twice, a score that is no number, byte pieces that are not the 256 bytes, a map of characters that
        leads outside itself.
        """
        if self.algorithm not in (UNIGRAM, BPE):
            raise TokenizerError(f"the model's type is {self.algorithm}; 1 (unigram) and 2 (BPE) are known")
        if not 0 < len(self.pieces) <= _MOST_PIECES or not len(self.pieces) == len(self.scores) == len(
            self.types
        ):
            raise TokenizerError(
                f"the model has {len(self.pieces):,} pieces; 1 to {_MOST_PIECES:,} are taken"
            )
        if self.types.count(UNKNOWN) != 1:
            raise TokenizerError(
                f"the model has {self.types.count(UNKNOWN)} unknown pieces where one belongs"
            )
        self.unknown = self.types.index(UNKNOWN)
        if len(set(self.pieces)) != len(self.pieces):
            raise TokenizerError("the model has a piece twice")
        if not all(self.pieces) or max(map(len, self.pieces)) > _LONGEST_PIECE:
            raise TokenizerError(
                f"the model has a piece that is empty or longer than {_LONGEST_PIECE} characters"
            )
        if not all(map(math.isfinite, self.scores)):
            raise TokenizerError("the model has a score that is no finite number")
        found = [piece for piece, kind in zip(self.pieces, self.types, strict=True) if kind == BYTE]
        if (
            set(found) - set(_BYTES)
            or (self.byte_fallback and len(found) != 256)
            or (found and not self.byte_fallback)
        ):
            raise TokenizerError(f"the model has {len(found)} byte pieces, not one for each of the 256 bytes")
        if self.charsmap:
            check_charsmap(self.charsmap)

    def write(self) -> bytes:
        """Return the model as the library reads it."""
        out = []
        for piece, score, kind in zip(self.pieces, self.scores, self.types, strict=True):
            body = _string(1, piece.encode()) + b"\x15" + struct.pack("<f", score) + bytes((0x18, kind))
            out.append(_string(1, body))
        trainer = (
            _number(3, self.algorithm)
            + _number(24, self.suffix)
            + _number(35, self.byte_fallback)
            + _string(44, self.unk_surface.encode())
            + _string(45, self.pieces[self.unknown].encode())
            + _string(46, self.bos_piece.encode())
            + _string(47, self.eos_piece.encode())
        )
        normalizer = (
            _string(2, self.charsmap)
            + _number(3, self.add_dummy_prefix)
            + _number(4, self.remove_extra_whitespaces)
            + _number(5, self.escape_whitespaces)
        )
        return b"".join([*out, _string(2, trainer), _string(3, normalizer)])


# Writing.


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(int(value))


def _string(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


# Reading.


def _read_varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return a number and where it ends."""
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise _damaged(at)


def _damaged(at: int) -> TokenizerError:
    return TokenizerError(
        f"byte {at} of the model is damaged: it is no SentencePiece model. Download it again"
    )


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the tag of each field of a message, and where its value begins and ends."""
    while at < end:
        tag, at = _read_varint(data, at, end)
        match tag & 7:
            case 0:
                start = at
                _, at = _read_varint(data, at, end)
            case 1:
                start, at = at, at + 8
            case 2:
                length, start = _read_varint(data, at, end)
                at = start + length
            case 5:
                start, at = at, at + 4
            case _:
                raise _damaged(at)
        if at > end:
            raise _damaged(at)
        yield tag, start, at


def read(data: bytes) -> ModelProto:
    """Return the model in a .model file.

    Raises TokenizerError: no such message, a denormalizer (no published model has one), or as
    ModelProto.check says.
    """
    proto = ModelProto([], [], [])
    for tag, start, end in _fields(data, 0, len(data)):
        if tag == _PIECE:
            _read_piece(data, start, end, proto)
        elif tag == _TRAINER:
            _read_settings(data, start, end, proto, _OF_TRAINER)
        elif tag == _NORMALIZER:
            _read_settings(data, start, end, proto, _OF_NORMALIZER)
        elif tag == _DENORMALIZER:
            other = ModelProto([], [], [])
            _read_settings(data, start, end, other, _OF_NORMALIZER)
            if other.charsmap:
                raise TokenizerError(
                    "the model has a denormalizer, which no published model has. Do not use it"
                )
        elif tag != _SELF_TEST:
            raise _damaged(start)
    proto.check()
    return proto


def _read_piece(data: bytes, at: int, end: int, proto: ModelProto) -> None:
    piece, score, kind = b"", 0.0, NORMAL
    # A published vocabulary has up to 256,000 of these, so lengths below 128 are read in place.
    while at < end:
        tag = data[at]
        at += 1
        if tag == 0x0A:
            length, at = _read_varint(data, at, end) if at < end and data[at] > 127 else (data[at], at + 1)
            piece = data[at : at + length]
            at += length
        elif tag == 0x15 and at + 4 <= end:
            (score,) = struct.unpack_from("<f", data, at)
            at += 4
        elif tag == 0x18:
            kind, at = _read_varint(data, at, end)
        else:
            raise _damaged(at)
    if at != end or not NORMAL <= kind <= BYTE:
        raise _damaged(at)
    try:
        proto.pieces.append(piece.decode())
    except UnicodeDecodeError as error:
        raise TokenizerError(
            f"piece {len(proto.pieces)} of the model, {piece[:40]!r}, is not UTF-8"
        ) from error
    proto.scores.append(score)
    proto.types.append(kind)


# Tag -> attribute.
_OF_TRAINER = {3 << 3: "algorithm", 24 << 3: "suffix", 35 << 3: "byte_fallback"} | {
    44 << 3 | 2: "unk_surface",
    46 << 3 | 2: "bos_piece",
    47 << 3 | 2: "eos_piece",
}
_OF_NORMALIZER = {
    2 << 3 | 2: "charsmap",
    3 << 3: "add_dummy_prefix",
    4 << 3: "remove_extra_whitespaces",
    5 << 3: "escape_whitespaces",
}


def _read_settings(data: bytes, at: int, end: int, proto: ModelProto, names: dict[int, str]) -> None:
    for tag, start, stop in _fields(data, at, end):
        name = names.get(tag)
        if name is None:
            continue  # how it was trained
        value: object
        match getattr(proto, name):
            case bool():
                value = bool(_read_varint(data, start, stop)[0])
            case int():
                value = _read_varint(data, start, stop)[0]
            case bytes():
                value = data[start:stop]
            case _:
                value = data[start:stop].decode("utf-8", "replace")
        setattr(proto, name, value)


def check_charsmap(blob: bytes) -> None:
    """Raise TokenizerError unless no text can lead a precompiled_charsmap outside itself.

    It is a 32-bit length, a double array of 32-bit units (darts-clone) and NUL-terminated replacements. Its
    readers follow the units' offsets without looking at the array's size.
    """
    fault = TokenizerError(
        "the map of characters (precompiled_charsmap) is damaged. Download the tokenizer again"
    )
    size = int.from_bytes(blob[:4], "little")
    texts = blob[4 + size :]
    if size % 4 or not 0 < size <= len(blob) - 5 or texts[-1:] != b"\0":
        raise fault
    units = np.frombuffer(blob, "<u4", size // 4, 4)
    inner = np.flatnonzero(units >> 31 == 0)
    unit = units[inner]
    base = inner ^ ((unit >> 10).astype(np.int64) << ((unit & 512) >> 6))
    if units[0] >> 31 or bool(
        np.any(base | 255 >= units.size)
    ):  # the children of a unit lie in one block of 256
        raise fault
    leaves = units[base[(unit & 256) != 0]] & 0x7FFFFFFF
    if bool(np.any(leaves >= len(texts))) or max(map(len, texts.split(b"\0"))) > _LONGEST_REPLACEMENT:
        raise fault
