"""Zip archives that are not as torch.save writes them: bombs, two meanings, members where none can be."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from bestiary.files import open_checkpoint
from tests.unit.files.craft import Member, archive, legacy, pickled, refused, saved
from tests.unit.files.test_torchbin import FLOATS, PARTS, PICKLE

WIDE_PARTS = saved(PICKLE, {"0": FLOATS}, wide=True)


def changed(
    whole: bytes, signature: bytes, position: int, kind: str, value: int, *, last: bool = True
) -> bytes:
    """The file with one number of a header changed."""
    out = bytearray(whole)
    place = out.rindex(signature) if last else out.index(signature)
    struct.pack_into(kind, out, place + position, value)
    return bytes(out)


# A storage in whose bytes the header of another one lies.
INNER = Member("a/data/1", bytes(4), written=False)
OUTER = Member("a/data/0", INNER.head(zlib.crc32(bytes(4))) + INNER.data + bytes(6))
INNER.offset = archive([*PARTS[:2], OUTER]).index(OUTER.data)

# What the error says -> the files that are refused with it.
ARCHIVES: dict[str, dict[str, bytes]] = {
    "no data.pkl": {
        "no data.pkl": archive(PARTS[1:]),
        "data.pkl elsewhere": archive([Member("a/b/data.pkl", PICKLE), *PARTS[1:]]),
    },
    "outside its one folder": {
        "no folder": archive([Member("data.pkl", PICKLE), Member("data/0", FLOATS)]),
        "two folders": archive([PARTS[0], Member("b/data/0", FLOATS)]),
    },
    "big-endian": {
        "big-endian": archive([PARTS[0], Member("a/byteorder", b"big"), PARTS[2]]),
        "byte order unknown": archive([PARTS[0], Member("a/byteorder", b"middle"), PARTS[2]]),
    },
    "has 0 of 48 bytes": {
        "storage missing": archive(PARTS[:2]),
    },
    "twice": {
        "storage twice": archive([*PARTS, PARTS[2]]),
        "pickle twice": archive([*PARTS, Member("a/data.pkl", pickled(b"}"))]),
    },
    "compressed": {
        "deflated": archive([*PARTS[:2], Member("a/data/0", FLOATS, method=8)]),
        "deflated, the member says stored": archive(
            [*PARTS[:2], Member("a/data/0", FLOATS, method=8, local_method=0)]
        ),
        "sizes differ": archive([*PARTS[:2], Member("a/data/0", FLOATS, size=1 << 29)]),
        "larger before packing": archive([*PARTS[:2], Member("a/data/0", FLOATS, size=49)]),
        "smaller before packing": archive([*PARTS[:2], Member("a/data/0", FLOATS + bytes(4), size=48)]),
        "size in the wide field, without one": changed(archive(PARTS), b"PK\1\2", 24, "<L", 0xFFFFFFFF),
    },
    "encrypted or patched": {
        "encrypted": archive([*PARTS[:2], Member("a/data/0", FLOATS, flags=1)]),
        "strong encryption": archive([*PARTS[:2], Member("a/data/0", FLOATS, flags=0x2041)]),
        "encrypted, the member says not": archive(
            [*PARTS[:2], Member("a/data/0", FLOATS, flags=1, local_flags=0)]
        ),
    },
    "does not describe": {
        "deflated, the directory says stored": archive(
            [*PARTS[:2], Member("a/data/0", FLOATS, local_method=8)]
        ),
        "encrypted, the directory says not": archive([*PARTS[:2], Member("a/data/0", FLOATS, local_flags=1)]),
        "another name in the member": archive(
            [*PARTS[:2], Member("a/data/0", FLOATS, local_name="a/data/1")]
        ),
        "shorter name in the member": archive([*PARTS[:2], Member("a/data/0", FLOATS, local_name="a/data/")]),
        "member at the directory": archive([*PARTS[:2], Member("a/data/0", FLOATS, offset=400)]),
    },
    "lies outside the file": {
        "member outside": archive([*PARTS[:2], Member("a/data/0", FLOATS, offset=1 << 31)]),
    },
    "overlap, or leave a gap": {
        "members on each other": archive([*PARTS[:2], OUTER, INNER]),
        "bytes before that look right": archive(PARTS, before=b"PK\3\4"),
        "bytes between": archive(PARTS, between=bytes(25)),
        "member's extra of 65,535 bytes": changed(archive(PARTS), b"PK\3\4", 28, "<H", 0xFFFF),
    },
    "not UTF-8": {
        "name not UTF-8": archive(PARTS).replace(b"a/data/0", b"a/data/\xff"),
    },
    "no end record at its end": {
        "comment": archive(PARTS, comment=b"hello"),
        "bytes after": archive(PARTS) + b"\0",
        "end record cut": archive(PARTS)[:-1],
    },
    "is no file of torch.save": {
        "bytes before": archive(PARTS, before=b"\0"),
        "no members": archive([]),
        "only an end record": archive([])[-22:],
    },
    "more in it than it counts": {
        "fewer members counted": archive(PARTS, count=2),
    },
    "not where its end record says": {
        "comment that is an end record": archive(PARTS, comment=archive([])),
        "more members counted": archive(PARTS, count=4),
        "65,535 members counted": archive(PARTS, count=0xFFFF),
        "directory elsewhere": archive(PARTS, directory_offset=0),
        "directory past the end": archive(PARTS, directory_offset=1 << 30),
    },
    "disagree": {
        "wide record disagrees": archive(PARTS, wide=True, wide_count=2),
        "wide record, huge directory": changed(WIDE_PARTS, b"PK\6\6", 40, "<Q", 2**63),
    },
    "64-bit end record is damaged": {
        "wide record counts 2^64": changed(WIDE_PARTS, b"PK\6\6", 32, "<Q", 2**64 - 1),
    },
    "64-bit end record is not where": {
        "wide record elsewhere": changed(WIDE_PARTS, b"PK\6\7", 8, "<Q", 0),
        "wide record past the end": changed(WIDE_PARTS, b"PK\6\7", 8, "<Q", 2**64 - 1),
    },
    "several volumes or a comment": {
        "several volumes": changed(archive(PARTS), b"PK\5\6", 4, "<H", 1),
        "comment announced": changed(archive(PARTS), b"PK\5\6", 20, "<H", 5),
    },
    "directory is damaged": {
        "member on another volume": changed(archive(PARTS), b"PK\1\2", 34, "<H", 2),
        "name of 65,535 bytes": changed(archive(PARTS), b"PK\1\2", 28, "<H", 0xFFFF),
        "extra of 65,535 bytes": changed(archive(PARTS), b"PK\1\2", 30, "<H", 0xFFFF),
    },
    "checksum": {
        "pickle damaged": archive([Member("a/data.pkl", PICKLE, crc=1), *PARTS[1:]]),
    },
    "the pickle is cut": {
        "pickle empty": archive([Member("a/data.pkl", b""), *PARTS[1:]]),
    },
    "follow the end of the pickle": {
        "bytes after the pickle": archive([Member("a/data.pkl", PICKLE + b"\0"), *PARTS[1:]]),
    },
}


@pytest.mark.optimised
@pytest.mark.parametrize(
    ("saying", "kind"), [(saying, kind) for saying, kinds in ARCHIVES.items() for kind in kinds]
)
def test_bad_archives_are_refused(tmp_path: Path, saying: str, kind: str) -> None:
    refused(tmp_path / "pytorch_model.bin", ARCHIVES[saying][kind], saying=saying)


def test_the_archives_above_are_good_but_for_one_thing(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    for content in (
        archive(PARTS),
        archive(PARTS, wide=True),
        WIDE_PARTS,
        legacy(PICKLE, {"0": (12, FLOATS)}),
    ):
        path.write_bytes(content)
        assert open_checkpoint(path).entries["w"].read().tolist() == [*range(12)]
    path.write_bytes(archive(PARTS, wide=True))
    assert zipfile.ZipFile(path).testzip() is None
