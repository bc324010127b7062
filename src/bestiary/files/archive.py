"""The zip form that `torch.save` writes since 1.6, read strictly: where each member's bytes lie in the file.

Layout: APPNOTE.TXT 6.3 (PKWARE). What torch writes is a narrow part of it, and only that is read: members
stored as they are, one folder, names once, no encryption, nothing before, between or after that is not
accounted for. So a zip bomb (2 MB that unpack to 512 MB), a file with two meanings and a member outside the
file are all refused.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from .source import Source

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_STORED, _SIZES_FOLLOW, _UTF8 = 0, 0x0008, 0x0800
_LONGEST_DESCRIPTOR = 24  # signature, CRC and two 64-bit sizes, after a member whose sizes follow it
_MOST_MEMBERS = 1 << 20
_RESAVE = "Ask for a safetensors version of this model, or save it again with torch.save"


@dataclass(frozen=True)
class Member:
    """A file in the archive: where its bytes lie in that, and their CRC-32 (0 where it was not computed)."""

    offset: int
    nbytes: int
    crc: int


def is_archive(source: Source) -> bool:
    """Tell whether a file begins as a zip archive does."""
    return bytes(source.data[:4]) == b"PK\x03\x04"


def members(source: Source) -> dict[str, Member]:
    """Return the members of an archive, by name without the one folder that they all lie in.

    Raises CheckpointError.
    """
    directory, end, count = _directory(source)
    start = directory
    found: dict[str, Member] = {}
    spans: list[tuple[int, int]] = []
    folder = None
    for _ in range(count):
        name, member, begin, start = _member(source, start, end)
        top, _, rest = name.partition("/")
        if folder not in (None, top) or not rest:
            raise source.error(f"the archive has {name[:80]!r} outside its one folder", offset=begin)
        if rest in found:
            raise source.error(f"the archive has {name[:80]!r} twice", offset=begin)
        folder, found[rest] = top, member
        spans.append((begin, member.offset + member.nbytes))
    if start != end:
        raise source.error("the archive's directory has more in it than it counts", offset=start)
    _check_spans(source, spans, directory)
    return found


def content(source: Source, member: Member) -> memoryview:
    """Return a member's bytes, after its checksum. Raises CheckpointError when they were changed."""
    data = source.data[member.offset : member.offset + member.nbytes]
    if member.crc and zlib.crc32(data) != member.crc:  # torch can be told not to compute it, and writes 0
        raise source.error("a member of the archive has not the checksum it should", offset=member.offset)
    return data


def _directory(source: Source) -> tuple[int, int, int]:
    """Return where the central directory begins and ends, and how many members it names."""
    at = source.size - _END.size
    if at < 0 or bytes(source.data[at : at + 4]) != b"PK\x05\x06":
        raise source.error("the zip archive has no end record at its end: it is cut, or something follows it")
    _, disk, first, here, count, size, offset, comment = _END.unpack_from(source.data, at)
    if disk or first or here != count or comment:
        raise source.error("the zip archive has several volumes or a comment", offset=at, remedy=_RESAVE)
    locator = at - _LOCATOR.size
    if locator >= 0 and bytes(source.data[locator : locator + 4]) == b"PK\x06\x07":
        wide = _directory64(source, locator)
        # A field of all ones stands for "see the wide record"; any other must say the same as that does.
        full = (0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
        for narrow, value, ones in zip((count, size, offset), wide[:3], full, strict=True):
            if narrow not in (ones, value):
                raise source.error("the zip archive's two end records disagree", offset=at)
        count, size, offset, at = wide
    if offset + size != at or count > min(_MOST_MEMBERS, size // _CENTRAL.size):
        raise source.error("the zip archive's directory is not where its end record says", offset=at)
    return offset, offset + size, count


def _directory64(source: Source, locator: int) -> tuple[int, int, int, int]:
    """Return count, size and offset of the directory, and where the 64-bit end record itself begins."""
    _, disk, at, disks = _LOCATOR.unpack_from(source.data, locator)
    if disk or disks > 1 or at != locator - _END64.size:
        raise source.error("the zip archive's 64-bit end record is not where it should be", offset=locator)
    magic, length, _, _, disk, first, here, count, size, offset = _END64.unpack_from(source.data, at)
    if magic != b"PK\x06\x06" or length != _END64.size - 12 or disk or first or here != count:
        raise source.error("the zip archive's 64-bit end record is damaged", offset=at)
    return count, size, offset, at


def _member(source: Source, at: int, end: int) -> tuple[str, Member, int, int]:
    """Return a directory entry's name, its member, where that begins, and where the next entry does."""
    if end - at < _CENTRAL.size:
        raise source.error("the zip archive's directory is cut", offset=at)
    fields = _CENTRAL.unpack_from(source.data, at)
    magic, _, _, flags, method, _, _, crc, packed, nbytes = fields[:10]
    name_length, extra_length, comment, disk, _, _, begin = fields[10:]
    names = at + _CENTRAL.size
    extras = names + name_length
    after = extras + extra_length + comment
    if magic != b"PK\x01\x02" or after > end or disk not in (0, 0xFFFF):
        raise source.error("the zip archive's directory is damaged", offset=at)
    raw = bytes(source.data[names:extras])
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise source.error("the zip archive has a name that is not UTF-8", offset=names) from None
    if flags & ~(_SIZES_FOLLOW | _UTF8):
        raise source.error(f"{name[:80]!r} in the archive is encrypted or patched", offset=at, remedy=_RESAVE)
    wide = _wide(bytes(source.data[extras : extras + extra_length]))
    nbytes, packed, begin = (
        wide.pop(0) if value == 0xFFFFFFFF and wide else value for value in (nbytes, packed, begin)
    )
    if method != _STORED or packed != nbytes:
        reason = f"{name[:80]!r} in the archive is compressed, which torch.save never does: it may be a bomb"
        raise source.error(reason, offset=at, remedy=_RESAVE)
    return name, Member(_data_offset(source, begin, raw), nbytes, crc), begin, after


def _wide(extra: bytes) -> list[int]:
    """Return the 64-bit numbers of a directory entry, for the fields that are all ones, in their order."""
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<2H", extra, at)
        if tag == 1:
            body = extra[at + 4 : at + 4 + length]
            return list(struct.unpack_from(f"<{len(body) // 8}Q", body))
        at += 4 + length
    return []


def _data_offset(source: Source, begin: int, name: bytes) -> int:
    """Return where a member's bytes begin: after its own header, which must agree with the directory."""
    if begin + _LOCAL.size > source.size:
        raise source.error("the zip archive has a member that lies outside the file", offset=begin)
    magic, _, flags, method, _, _, _, _, _, name_length, extra_length = _LOCAL.unpack_from(source.data, begin)
    names = begin + _LOCAL.size
    same = bytes(source.data[names : names + name_length]) == name
    if magic != b"PK\x03\x04" or not same or method != _STORED or flags & ~(_SIZES_FOLLOW | _UTF8):
        raise source.error("the zip archive has a member that its directory does not describe", offset=begin)
    return int(names + name_length + extra_length)


def _check_spans(source: Source, spans: list[tuple[int, int]], directory: int) -> None:
    """Refuse members that overlap, leave room for something hidden, or run into the directory."""
    at = 0
    for begin, end in [*sorted(spans), (directory, directory)]:
        if not at <= begin <= at + (_LONGEST_DESCRIPTOR if at else 0):
            raise source.error("the zip archive's members overlap, or leave a gap between them", offset=begin)
        at = end
