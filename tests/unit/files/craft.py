"""Weight files byte by byte: what no library would write, and the smallest good ones to damage."""

from __future__ import annotations

import json
import os
import struct
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bestiary.errors import CheckpointError
from bestiary.files import Checkpoint, open_checkpoint

# What a file may take to be read or refused. Of this process's own time: machines are paused and shared.
SECONDS = 2.0


def refused(path: Path, content: bytes | None = None, *, saying: str = "") -> CheckpointError:
    """Return the one error with which a file is refused, having checked that it names the file and a
    remedy.
    """
    if content is not None:
        path.unlink(missing_ok=True)  # not overwritten: another test may have it mapped
        path.write_bytes(content)
    began = time.process_time()
    with pytest.raises(CheckpointError) as raised:
        read_all(open_checkpoint(path))
    if (took := time.process_time() - began) > SECONDS:
        pytest.fail(f"took {took:.1f} s")
    error = raised.value
    if type(error) is not CheckpointError or path.name not in str(error.file) or not error.remedy:
        pytest.fail(f"not the error that was promised: {error!r}")
    if saying not in str(error):
        pytest.fail(f"{saying!r} is not in {str(error)!r}")
    return error


def read_all(checkpoint: Checkpoint) -> None:
    """Read every tensor to its last byte, and every value of the metadata."""
    for entry in checkpoint.entries.values():
        entry.read().clone()
    for value in checkpoint.metadata.values():
        if isinstance(value, Sequence) and not isinstance(value, str):
            list(value)


def resident() -> int:
    """Return how many bytes of memory this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


# safetensors.


def safetensors(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A file with this header: an object for JSON, or the very bytes."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def F32(begin: int, end: int, *shape: int) -> dict[str, object]:  # noqa: N802 (the format's own name)
    """A header entry of float32."""
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}


# Pickles: instructions as bytes.


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def numbers(values: Sequence[int]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def storage(
    key: str, count: int, kind: str = "FloatStorage", device: str = "cpu", last: bytes = b""
) -> bytes:
    """Put a storage on the stack. last: a sixth value of the persistent id, as the legacy form has."""
    return (
        b"(" + text("storage") + name("torch", kind) + text(key) + text(device) + number(count) + last + b"tQ"
    )


def tensor(
    stored: bytes,
    shape: Sequence[int],
    stride: Sequence[int],
    offset: int = 0,
    maker: tuple[str, str] = ("torch._utils", "_rebuild_tensor_v2"),
) -> bytes:
    """Put a tensor on the stack."""
    hooks = name("collections", "OrderedDict") + b")R"
    return (
        name(*maker)
        + b"("
        + stored
        + number(offset)
        + numbers(shape)
        + numbers(stride)
        + b"\x89"
        + hooks
        + b"tR"
    )


def state_dict(tensors: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in tensors.items()) + b"u"


def pickled(value: bytes, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + value + b"."


# Arrays of NumPy, as JAX's users pickle them.


def array(
    code: str, shape: Sequence[int], data: bytes, *, order: str = "<", fortran: bytes = b"\x89"
) -> bytes:
    """Put an array on the stack. code: NumPy's letters, or bfloat16, which is a type of ml_dtypes."""
    letters = name("ml_dtypes", "bfloat16") if code == "bfloat16" else text(code)
    dtype = name("numpy", "dtype") + b"(" + letters + b"\x89\x88tR"
    dtype += b"(" + number(3) + text(order) + b"NNN" + numbers([-1, -1, 0])[1:] + b"b"
    made = name("numpy.core.multiarray", "_reconstruct")
    made += b"(" + name("numpy", "ndarray") + numbers([0]) + b"C\1btR"
    held = b"B" + struct.pack("<I", len(data)) + data
    return made + b"(" + number(1) + numbers(shape) + dtype + fortran + held + b"tb"


def quantised(weight: bytes, scales: bytes) -> bytes:
    """Put Grok-1's 8-bit weight on the stack."""
    parts = b"}(" + text("weight") + weight + text("scales") + scales + b"u"
    return name("__main__", "QuantizedWeight8bit") + b")\x81" + parts + b"b"


# The two layouts of torch.save.

MAGIC = pickled(number(0x1950A86A20F9469CFC6C))
SYSTEM = pickled(b"}(" + text("little_endian") + b"\x88" + text("protocol_version") + number(1001) + b"u")


def legacy(
    pickle: bytes,
    storages: Mapping[str, tuple[int, bytes]] | None = None,
    *,
    magic: bytes = MAGIC,
    version: bytes = pickled(number(1001)),
    system: bytes = SYSTEM,
    keys: bytes | None = None,
) -> bytes:
    """A file of before 1.6. storages: key -> (elements, bytes)."""
    storages = storages or {}
    listed = pickled(b"](" + b"".join(map(text, storages)) + b"e") if keys is None else keys
    runs = b"".join(struct.pack("<q", count) + data for count, data in storages.values())
    return magic + version + system + pickle + listed + runs


@dataclass
class Member:
    """A member of a zip archive, and what its headers say of it where that is not the truth."""

    name: str
    data: bytes
    method: int = 0
    flags: int = 0
    size: int | None = None
    crc: int | None = None
    local_name: str | None = None
    local_method: int | None = None
    local_flags: int | None = None
    offset: int | None = None
    written: bool = True

    def head(self, crc: int) -> bytes:
        """The header before the bytes."""
        local = (self.local_name or self.name).encode()
        method = self.method if self.local_method is None else self.local_method
        flags = self.flags if self.local_flags is None else self.local_flags
        size = len(self.data) if self.size is None else self.size
        fields = (20, flags, method, 0, 0, crc, len(self.data), size, len(local), 0)
        return struct.pack("<4s5H3L2H", b"PK\3\4", *fields) + local


def archive(
    members: Sequence[Member],
    *,
    count: int | None = None,
    comment: bytes = b"",
    before: bytes = b"",
    between: bytes = b"",
    wide: bool = False,
    wide_count: int | None = None,
    directory_offset: int | None = None,
) -> bytes:
    """A zip archive; `wide` adds the 64-bit end record, as torch does."""
    body, directory = before, b""
    for member in members:
        size = len(member.data) if member.size is None else member.size
        crc = zlib.crc32(member.data) if member.crc is None else member.crc
        begin = len(body) if member.offset is None else member.offset
        if member.written:
            body += member.head(crc) + member.data + between
        encoded = member.name.encode()
        fields = (20, 20, member.flags, member.method, 0, 0, crc, len(member.data), size, len(encoded))
        directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", *fields, 0, 0, 0, 0, 0, begin) + encoded
    total = len(members) if count is None else count
    at = len(body) if directory_offset is None else directory_offset
    end = b""
    if wide:
        here = total if wide_count is None else wide_count
        end += struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, here, here, len(directory), at)
        end += struct.pack("<4sLQL", b"PK\6\7", 0, len(body) + len(directory), 1)
    end += struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, total, total, len(directory), at, len(comment))
    return body + directory + end + comment


def saved(pickle: bytes, storages: Mapping[str, bytes] | None = None, *more: Member, **ends: Any) -> bytes:
    """A file as torch.save writes it: data.pkl and one member a storage."""
    runs = [Member(f"archive/data/{key}", data) for key, data in (storages or {}).items()]
    marks = [Member("archive/byteorder", b"little"), Member("archive/version", b"3\n")]
    return archive([Member("archive/data.pkl", pickle), *marks, *runs, *more], **ends)


# GGUF.


@dataclass
class GgufTensor:
    name: str
    shape: tuple[int, ...]  # torch's order
    kind: int
    data: bytes
    offset: int | None = None
    dims: int | None = None


@dataclass
class Gguf:
    """A GGUF file. metadata: key -> (type, bytes of the value); `string`, `array` and `packed` make them."""

    metadata: list[tuple[bytes, int, bytes]] = field(default_factory=list)
    tensors: list[GgufTensor] = field(default_factory=list)
    version: int = 3
    magic: bytes = b"GGUF"
    alignment: int = 32
    count: int | None = None
    keys: int | None = None

    def length(self, value: int) -> bytes:
        return struct.pack("<I" if self.version == 1 else "<Q", value)

    def string(self, value: str | bytes) -> bytes:
        raw = value.encode() if isinstance(value, str) else value
        return self.length(len(raw)) + raw

    def array(self, kind: int, values: Sequence[bytes], count: int | None = None) -> bytes:
        return (
            struct.pack("<I", kind) + self.length(len(values) if count is None else count) + b"".join(values)
        )

    def header(self) -> bytes:
        count = len(self.tensors) if self.count is None else self.count
        keys = len(self.metadata) if self.keys is None else self.keys
        out = self.magic + struct.pack("<I", self.version) + self.length(count) + self.length(keys)
        for key, kind, value in self.metadata:
            out += self.string(key) + struct.pack("<I", kind) + value
        at = 0
        for each in self.tensors:
            dims = len(each.shape) if each.dims is None else each.dims
            out += self.string(each.name) + struct.pack("<I", dims)
            out += b"".join(map(self.length, reversed(each.shape)))
            out += struct.pack("<IQ", each.kind, at if each.offset is None else each.offset)
            at += len(each.data) + -len(each.data) % self.alignment
        return out

    def build(self) -> bytes:
        out = self.header()
        if self.tensors:
            out += bytes(-len(out) % self.alignment)
        for each in self.tensors:
            out += each.data + bytes(-len(each.data) % self.alignment)
        return out
