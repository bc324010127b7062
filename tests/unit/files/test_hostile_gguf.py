"""GGUF files that lie: every kind of llama.cpp's own malformed files, and more, is refused."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from bestiary.errors import CheckpointError
from bestiary.files import open_checkpoint
from bestiary.files.gguf import TYPES
from bestiary.formats import FORMATS
from tests.unit.files.craft import Gguf, GgufTensor, refused
from tests.unit.files.test_gguf import (
    ARRAY,
    I32,
    NUMBERS,
    PLAIN,
    STRING,
    U8,
    U16,
    U32,
    U64,
    small,
    u32,
    write,
)


def altered(version: int = 3, **fields: Any) -> bytes:
    file = small(version)
    for name, value in fields.items():
        setattr(file, name, value)
    return file.build()


def with_key(key: bytes, kind: int, value: bytes, version: int = 3) -> bytes:
    file = small(version)
    file.metadata.append((key, kind, value))
    return file.build()


def with_tensor(shape: tuple[int, ...], kind: int, data: bytes, name: str = "extra", **fields: Any) -> bytes:
    file = small()
    file.tensors.append(GgufTensor(name, shape, kind, data, **fields))
    return file.build()


def string(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(value) if length is None else length) + value


def array(kind: int, count: int, data: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + data


def misaligned() -> bytes:
    """Offsets that were padded to 1 byte in a file that says nothing of alignment."""
    file = small(alignment=1)
    file.metadata.pop()
    return file.build()


WHOLE = small().build()

# The names are those of llama.cpp's tests/test-gguf.cpp.
LLAMA_CPP: dict[str, bytes] = {
    "HEADER_BAD_MAGIC": altered(magic=b"FUGG"),
    "HEADER_BAD_VERSION_0": altered(version=0),
    "HEADER_BAD_VERSION_1": b"GGUF" + u32(1) + WHOLE[8:],  # 64-bit counts under version 1
    "HEADER_BAD_VERSION_FUTURE": altered(version=4),
    "HEADER_BAD_N_TENSORS": altered(count=2**64 - 1),
    "HEADER_BAD_N_KV": altered(keys=2**64 - 1),
    "KV_BAD_KEY_SIZE": WHOLE.replace(string(b"a.u8"), string(b"a.u8", 2**64 - 1)),
    "KV_EMPTY_KEY": with_key(b"", U8, b"\1"),
    "KV_BAD_TYPE": with_key(b"k", 13, b"\1"),
    "KV_BAD_VALUE_SIZE": with_key(b"k", STRING, string(b"x", 2**64 - 1)),
    "KV_DUPLICATE_KEY": with_key(b"a.u8", U8, b"\1"),
    "KV_BAD_ALIGN": with_key(b"general.alignment", U32, u32(13)),
    "KV_WRONG_TYPE_ALIGN": with_key(b"general.alignment", I32, u32(32)),
    "TENSORS_BAD_NAME_SIZE": with_tensor(
        (1,), 0, bytes(4), "my_tensor_with_a_very_long_name_which_is_longer_than_what_is_allowed"
    ),
    "TENSORS_BAD_N_DIMS": with_tensor((1, 1, 1, 1, 1), 0, bytes(4)),
    "TENSORS_BAD_SHAPE": with_tensor((2**64 - 1,), 0, bytes(4)),
    "TENSORS_NE_TOO_BIG": with_tensor((4 * (2**31 - 1),) * 2, 0, bytes(4)),
    "TENSORS_NBYTES_TOO_BIG": with_tensor((1_550_000_000,) * 2, NUMBERS["I64"], bytes(4)),
    "TENSORS_BAD_TYPE": with_tensor((1,), max(TYPES) + 1, bytes(4)),
    "TENSORS_BAD_OFFSET": with_tensor((1,), 0, bytes(4), offset=2**64 - 1),
    "TENSORS_DUPLICATE_NAME": with_tensor((1,), 0, bytes(4), "bias"),
    "TENSORS_BAD_ALIGN": altered(metadata=[(b"general.alignment", U32, u32(13))]),
    "TENSORS_INCONSISTENT_ALIGN": misaligned(),
    "DATA_NOT_ENOUGH_DATA": with_tensor((32,), NUMBERS["I8"], bytes(32))[:-1],
    "DATA_BAD_ALIGN": altered(metadata=[(b"general.alignment", U32, u32(13))], alignment=13),
    "DATA_INCONSISTENT_ALIGN": with_tensor((5,), 0, bytes(20), offset=161),
    "DATA_MEM_SIZE_OVERFLOW": altered(
        tensors=[GgufTensor(n, (0x7FFFFFFFFFFFFFC0,), NUMBERS["I8"], bytes(32)) for n in "ab"]
    ),
}

# What the error says -> the files that are refused with it.
OTHERS: dict[str, dict[str, bytes]] = {
    "no GGUF file": {
        "safetensors": struct.pack("<Q", 2) + b"{}",
        "zip": b"PK\3\4" + bytes(60),
    },
    "older than GGUF": {
        "GGML": b"lmgg" + bytes(60),
        "GGMF": b"fmgg" + bytes(60),
        "GGJT": b"tjgg" + bytes(60),
    },
    "big-endian": {
        "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
        "big-endian, version 2": b"GGUF" + struct.pack(">IQQ", 2, 0, 0),
    },
    "GGUF version": {
        "version 2^32-1": altered(version=2**32 - 1),
    },
    "is empty": {
        "nothing": b"",
    },
    "the header is cut": {
        "only the magic": b"GGUF",
        "only a version": b"GGUF" + u32(3),
        "value cut": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string(b"k") + u32(U64) + bytes(7),
        "no padding before the data": small().header()[:-1],
    },
    "a count of": {
        "counts that the file could not hold": altered(count=len(WHOLE) // 32),
        "keys without end": b"GGUF"
        + struct.pack("<IQQ", 3, 0, 70_000)
        + b"".join(string(b"%05d" % i) + bytes(5) for i in range(70_000)),
    },
    "can be": {
        "more keys than there are": altered(keys=17),
        "key of 65,536 bytes": with_key(b"k" * 65536, U8, b"\1"),
        "key length 2^63": WHOLE.replace(string(b"a.u8"), string(b"a.u8", 2**63)),
        "value length 2^63": with_key(b"k", STRING, string(b"x", 2**63)),
        "value of 2^32 in version 1": with_key(b"k", STRING, u32(2**32 - 1), 1),
        "name of 64 bytes": with_tensor((1,), 0, bytes(4), "x" * 64),
        "name of 32 letters, 64 bytes": with_tensor((1,), 0, bytes(4), "é" * 32),
    },
    "dimensions, not 1 to 4": {
        "fewer keys than there are": altered(keys=15),
        "no dimensions": with_tensor((), 0, bytes(4)),
        "2^32-1 dimensions": with_tensor((1,), 0, bytes(4), dims=2**32 - 1),
    },
    "not UTF-8": {
        "key not UTF-8": with_key(b"\xff", U8, b"\1"),
        "value not UTF-8": with_key(b"k", STRING, string(b"\xff\xfe")),
        "short array not UTF-8": with_key(b"k", ARRAY, array(STRING, 1, string(b"\xff"))),
        "long array not UTF-8": with_key(b"k", ARRAY, array(STRING, 300, string(b"\xff") * 300)),
    },
    "unprintable": {
        "key with newline": with_key(b"a\nb", U8, b"\1"),
    },
    "the unknown type": {
        "type 2^32-1": with_key(b"k", 2**32 - 1, b"\1"),
        "array of unknown type": with_key(b"k", ARRAY, array(13, 1, bytes(8))),
        "type of 2^32-1": with_tensor((1,), 2**32 - 1, bytes(4)),
    },
    "the file is too short": {
        "array of 2^31": with_key(b"k", ARRAY, array(U8, 2**31)),
        "array of 2^63": with_key(b"k", ARRAY, array(U8, 2**63)),
        "array of 2^64-1 words": with_key(b"k", ARRAY, array(U64, 2**64 - 1)),
        "array of 2^61 words, 2^64 bytes": with_key(b"k", ARRAY, array(U64, 2**61)),
        "array of 2^31 strings": with_key(b"k", ARRAY, array(STRING, 2**31)),
        "array of 2^63 strings": with_key(b"k", ARRAY, array(STRING, 2**63)),
    },
    "not nested": {
        "array of arrays": with_key(b"k", ARRAY, array(ARRAY, 1, array(U8, 1, b"\1"))),
        "array of arrays of arrays": with_key(
            b"k", ARRAY, array(ARRAY, 1, array(ARRAY, 1, array(U8, 1, b"\1")))
        ),
        "arrays 100,000 deep": with_key(b"k", ARRAY, array(ARRAY, 1) * 100_000),
    },
    "past the end of the file": {
        "strings whose length is 2^63": with_key(b"k", ARRAY, array(STRING, 3, string(b"", 2**63) * 3)),
        "strings whose last is too long": with_key(
            b"k", ARRAY, array(STRING, 2, string(b"a") + string(b"b", 2**20))
        ),
        "strings whose last is too long, at the end": b"GGUF"
        + struct.pack("<IQQ", 3, 0, 1)
        + string(b"k")
        + u32(ARRAY)
        + array(STRING, 2, string(b"a") + string(b"b", 2)),
        "strings that wrap": with_key(b"k", ARRAY, array(STRING, 3, string(b"", 2**64 - 8) * 3)),
    },
    "no power of two": {
        "alignment 0": with_key(b"general.alignment", U32, u32(0)),
        "alignment 3": with_key(b"general.alignment", U32, u32(3)),
        "alignment is text": with_key(b"general.alignment", STRING, string(b"32")),
        "alignment is an array": with_key(b"general.alignment", ARRAY, array(U32, 1, u32(32))),
    },
    "the tensor's name": {
        "more tensors than there are": altered(count=4),
        "name empty": with_tensor((1,), 0, bytes(4), ""),
        "name with NUL": with_tensor((1,), 0, bytes(4), "a\0b"),
        "name leaves folder": with_tensor((1,), 0, bytes(4), "../a"),
    },
    "past what memory can address": {
        "sizes that wrap to 4": with_tensor((2**32, 2**32), 0, bytes(4)),
        "sizes of 2^62, and zero": with_tensor((0, 2**62, 2**62), 0, b""),
    },
    "no multiple of": {
        "row not of whole blocks": with_tensor((2, 31), NUMBERS["Q8_0"], bytes(68)),
        "row of 32 in blocks of 256": with_tensor((8, 32), NUMBERS["Q4_K"], bytes(144)),
    },
    "overlaps": {
        "alignment 64, written with 32": with_key(b"general.alignment", U32, u32(64)),
        "overlap": with_tensor((8,), 0, bytes(32), offset=0),
        "overlap by half": with_tensor((8,), 0, bytes(32), offset=32),
    },
    "leaves a hole": {
        "hole": with_tensor((8,), 0, bytes(64), offset=192),
        "offset not aligned": with_tensor((8,), 0, bytes(64), offset=161),
        "offset wraps": with_tensor((8,), 0, bytes(32), offset=2**64 - 32),
        "offset past the end": with_tensor((8,), 0, bytes(32), offset=2**40),
    },
    "the file is cut": {
        "alignment 2^31": with_key(b"general.alignment", U32, u32(2**31)),
        "tensor larger than the file": with_tensor((2**20,), 0, bytes(32)),
        "no data": small().header(),
    },
}


@pytest.mark.optimised
@pytest.mark.parametrize("kind", LLAMA_CPP)
def test_the_malformed_kinds_of_llama_cpp(tmp_path: Path, kind: str) -> None:
    refused(tmp_path / "x.gguf", LLAMA_CPP[kind])


@pytest.mark.optimised
@pytest.mark.parametrize(
    ("saying", "kind"), [(saying, kind) for saying, kinds in OTHERS.items() for kind in kinds]
)
def test_other_malformed_kinds(tmp_path: Path, saying: str, kind: str) -> None:
    refused(tmp_path / "x.gguf", OTHERS[saying][kind], saying=saying)


def test_enough_kinds() -> None:
    assert len(LLAMA_CPP) >= 26


@pytest.mark.optimised
@pytest.mark.parametrize("version", [1, 2, 3])
def test_every_truncation_is_refused(tmp_path: Path, version: int) -> None:
    whole = small(version).build()
    for length in range(len(whole) - 20):
        refused(tmp_path / "x.gguf", whole[:length])


@pytest.mark.parametrize(
    "kind", [name for name in TYPES.values() if name not in FORMATS and name not in PLAIN]
)
def test_types_that_are_not_read_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    error = refused(
        tmp_path / "x.gguf", with_tensor((256,), NUMBERS[kind], bytes(512)), saying=f"type {kind},"
    )
    assert error.tensor == "extra"
    assert "Re-quantise the model to one of F32, F16, BF16, Q4_0" in str(error)


# Splits.


def split(folder: Path, parts: int = 3, **changes: int) -> Path:
    for at in range(parts):
        file = Gguf()
        count = changes.get("count", parts)
        file.metadata = [
            (b"split.no", U16, struct.pack("<H", changes.get("no", at))),
            (b"split.count", U16, struct.pack("<H", count)),
            (b"split.tensors.count", I32, struct.pack("<i", changes.get("tensors", parts))),
        ]
        name = f"t{changes.get('name', at)}"
        file.tensors = [GgufTensor(name, (1,), 0, struct.pack("<f", at))]
        write(folder / f"m-{at + 1:05}-of-{parts:05}.gguf", file)
    return folder


def test_a_split_model_is_opened_by_its_first_part_or_its_folder(tmp_path: Path) -> None:
    split(tmp_path)
    for path in (tmp_path, tmp_path / "m-00001-of-00003.gguf"):
        entries = open_checkpoint(path).entries
        assert {name: entry.read().item() for name, entry in entries.items()} == {"t0": 0, "t1": 1, "t2": 2}


@pytest.mark.optimised
def test_bad_splits_are_refused(tmp_path: Path) -> None:
    first = "m-00001-of-00003.gguf"

    def folder(place: str, **changes: int) -> Path:
        (tmp_path / place).mkdir()
        return split(tmp_path / place, **changes)

    refused(folder("a") / "m-00002-of-00003.gguf", saying="-00001-of-00003.gguf")
    (folder("b") / first).rename(tmp_path / "b" / "m.gguf")
    refused(tmp_path / "b" / "m.gguf", saying="is part 1 of 3")
    (folder("c") / "m-00003-of-00003.gguf").unlink()
    with pytest.raises(CheckpointError, match="No such file") as raised:
        open_checkpoint(tmp_path / "c")
    if "m-00003-of-00003.gguf" not in str(raised.value):
        pytest.fail(str(raised.value))
    with pytest.raises(CheckpointError, match="in two parts"):
        open_checkpoint(folder("d", name=7))
    refused(folder("e", tensors=4) / first, saying="split.tensors.count")
    refused(folder("f", count=4) / first, saying="-00001-of-00004.gguf")
    outside = tmp_path / "outside.gguf"
    (folder("g") / "m-00002-of-00003.gguf").rename(outside)
    (tmp_path / "g" / "m-00002-of-00003.gguf").symlink_to(outside)
    refused(tmp_path / "g", saying="leads out")
