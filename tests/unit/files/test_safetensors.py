"""safetensors: equal to the library on good files; refusing what the format forbids, where the library does
not.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

from bestiary.errors import CheckpointError
from bestiary.files import open_checkpoint
from bestiary.files.safetensors import write
from bestiary.files.source import DTYPES
from tests.goldens import cases
from tests.unit.files.craft import F32, refused, safetensors

GOOD = {"a": F32(0, 8, 2), "b": F32(8, 24, 2, 2)}
DATA = struct.pack("<6f", *range(6))


def random_tensor(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    raw = torch.randint(0, 256, (*shape, dtype.itemsize), dtype=torch.uint8)
    return raw[..., 0] > 127 if dtype == torch.bool else raw.view(dtype).squeeze(-1)


def bits(tensor: torch.Tensor) -> list[int]:
    return tensor.clone(memory_format=torch.contiguous_format).view(-1).view(torch.uint8).tolist()


def assert_same_bits(got: torch.Tensor, want: torch.Tensor) -> None:
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    assert bits(got) == bits(want)


# Beside the library.


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (0, 4), (2, 1, 3, 2)])
def test_reads_what_the_library_writes(tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensors = {"one": random_tensor(dtype, *shape), "two": random_tensor(dtype, 7)}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    with open_checkpoint(tmp_path / "x.safetensors") as checkpoint:
        assert checkpoint.kind == "safetensors"
        assert checkpoint.metadata == {"format": "pt"}
        assert checkpoint.entries.keys() == tensors.keys()
        for name, want in tensors.items():
            assert_same_bits(checkpoint.entries[name].read(), want)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_the_library_reads_what_we_write(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "x.safetensors"
    tensors = {"b": random_tensor(dtype, 3, 5).t(), "a": torch.tensor(1.5), "ü": torch.zeros(0, 3)}
    write(path, tensors, {"made": "here"})
    for name, tensor in load_file(path).items():
        assert_same_bits(tensor, tensors[name])
    with safe_open(path, "pt") as theirs:
        assert theirs.metadata() == {"made": "here"}


@given(
    st.dictionaries(
        st.text(st.characters(categories=("L", "N")), min_size=1, max_size=9),
        st.tuples(st.sampled_from([*DTYPES]), st.lists(st.integers(0, 4), max_size=4)),
        max_size=6,
    )
)
def test_any_tensors_survive_writing_and_reading(spec: dict[str, tuple[str, list[int]]]) -> None:
    folder = Path("/dev/shm" if Path("/dev/shm").is_dir() else "/tmp")
    path = folder / f"bestiary-{os.getpid()}.safetensors"
    tensors = {name: random_tensor(DTYPES[dtype], *shape) for name, (dtype, shape) in spec.items()}
    try:
        write(path, tensors)
        entries = open_checkpoint(path).entries
        assert {name: entry.dtype for name, entry in entries.items()} == {n: d for n, (d, _) in spec.items()}
        for name, want in tensors.items():
            assert_same_bits(entries[name].read(), want)
        assert load_file(path).keys() == tensors.keys()
    finally:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("case", cases("format-safetensors-sharded"), ids=lambda case: case.name)
def test_sharded_reference(case: Path) -> None:
    checkpoint = open_checkpoint(case)
    want = load_file(case / "dequantized.safetensors")
    assert checkpoint.entries.keys() == want.keys()
    for name, tensor in want.items():
        torch.testing.assert_close(checkpoint.entries[name].read().float(), tensor, rtol=0, atol=0)


# Refusals.

ONE = {"a": F32(0, 4, 1)}
HEADERS: dict[str, tuple[object, bytes]] = {
    "duplicate name": (b'{"a":%s,"a":%s}' % ((json.dumps(F32(0, 4, 1)).encode(),) * 2), bytes(4)),
    "duplicate field": (b'{"a":{"dtype":"F32","dtype":"I32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
    "duplicate metadata": (b'{"__metadata__":{"k":"1","k":"2"}}', b""),
    "leading space": (b" " + json.dumps(ONE).encode(), bytes(4)),
    "leading newline": (b"\n" + json.dumps(ONE).encode(), bytes(4)),
    "byte order mark": (b"\xef\xbb\xbf" + json.dumps(ONE).encode(), bytes(4)),
    "array": (b"[]", b""),
    "text after": (json.dumps(ONE).encode() + b"x", bytes(4)),
    "zeros after": (json.dumps(ONE).encode() + b"\0\0", bytes(4)),
    "not UTF-8": (b'{"\xff":{}}', b""),
    "half a surrogate": (b'{"\\ud83d":%s}' % json.dumps(F32(0, 4, 1)).encode(), bytes(4)),
    "comment": (b"{/**/}", b""),
    "NaN": (b'{"a":NaN}', b""),
    "unknown field": ({"a": {**F32(0, 4, 1), "extra": 1}}, bytes(4)),
    "missing field": ({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)),
    "entry is a list": ({"a": []}, b""),
    "entry is null": ({"a": None}, b""),
    "unknown type": ({"a": {**F32(0, 4, 1), "dtype": "F33"}}, bytes(4)),
    "four-bit type": ({"a": {**F32(0, 4, 8), "dtype": "F4"}}, bytes(4)),
    "type is a number": ({"a": {**F32(0, 4, 1), "dtype": 32}}, bytes(4)),
    "type is a list": ({"a": {**F32(0, 4, 1), "dtype": ["F32"]}}, bytes(4)),
    "shape is a number": ({"a": {**F32(0, 4), "shape": 1}}, bytes(4)),
    "negative size": ({"a": F32(0, 4, -1)}, bytes(4)),
    "two negative sizes": ({"a": F32(0, 4, -1, -1)}, bytes(4)),
    "size is a float": ({"a": {**F32(0, 4), "shape": [1.0]}}, bytes(4)),
    "size is true": ({"a": {**F32(0, 4), "shape": [True]}}, bytes(4)),
    "size is text": ({"a": {**F32(0, 4), "shape": ["1"]}}, bytes(4)),
    "size past 64 bits": ({"a": F32(0, 4, 2**70)}, bytes(4)),
    "sizes wrap to 4 bytes": ({"a": F32(0, 4, 2**32, 2**32, 1)}, bytes(4)),
    "no elements, strides overflow": ({"a": F32(0, 0, 0, 2**62, 2**62)}, b""),
    "million dimensions": ({"a": F32(0, 4, *([1] * 100_000))}, bytes(4)),
    "one offset": ({"a": {**F32(0, 4, 1), "data_offsets": [4]}}, bytes(4)),
    "three offsets": ({"a": {**F32(0, 4, 1), "data_offsets": [0, 4, 4]}}, bytes(4)),
    "offsets backwards": ({"a": F32(4, 0, 1)}, bytes(4)),
    "negative offsets": ({"a": F32(-4, 0, 1)}, bytes(4)),
    "offset past 64 bits": ({"a": F32(2**64, 2**64 + 4, 1)}, bytes(4)),
    "bytes do not fit shape": ({"a": F32(0, 8, 1)}, bytes(8)),
    "past the end": ({"a": F32(0, 8, 2)}, bytes(4)),
    "overlap": ({"a": F32(0, 8, 2), "b": F32(4, 12, 2)}, bytes(12)),
    "same bytes twice": ({"a": F32(0, 8, 2), "b": F32(0, 8, 2)}, bytes(8)),
    "hole": ({"a": F32(0, 4, 1), "b": F32(8, 12, 1)}, bytes(12)),
    "hole at the start": ({"a": F32(4, 8, 1)}, bytes(8)),
    "bytes after": ({"a": F32(0, 4, 1)}, bytes(5)),
    "no tensors but bytes": ({}, bytes(1)),
    "empty name": ({"": F32(0, 4, 1)}, bytes(4)),
    "long name": ({"a" * 1001: F32(0, 4, 1)}, bytes(4)),
    "name leaves folder": ({"../../x": F32(0, 4, 1)}, bytes(4)),
    "name leaves folder, Windows": ({"..\\x": F32(0, 4, 1)}, bytes(4)),
    "absolute name": ({"/etc/x": F32(0, 4, 1)}, bytes(4)),
    "name with NUL": ({"a\0b": F32(0, 4, 1)}, bytes(4)),
    "name with escape": ({"a\x1b[2J": F32(0, 4, 1)}, bytes(4)),
    "name with newline": ({"a\nb": F32(0, 4, 1)}, bytes(4)),
    "name with bidi": ({"a\u202eb": F32(0, 4, 1)}, bytes(4)),
    "metadata is a list": ({"__metadata__": []}, b""),
    "metadata holds a number": ({"__metadata__": {"k": 1}}, b""),
    "deep": (b"{" + b'"a":{' * 100 + b"}" * 100 + b"}", b""),
    "very deep": (b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", b""),
    "unclosed": (b'{"a":{', b""),
    "million digits": (b'{"a":' + b"9" * 1_000_000 + b"}", b""),
    "million parts": (b'{"a":[' + b"0," * 2_000_001 + b"0]}", b""),
}


@pytest.mark.optimised
@pytest.mark.parametrize("kind", HEADERS)
def test_bad_headers_are_refused(tmp_path: Path, kind: str) -> None:
    header, data = HEADERS[kind]
    error = refused(tmp_path / "x.safetensors", safetensors(header, data))
    assert len(str(error)) < 2000, "a message is to be read"


LENGTHS = {
    "nothing": b"",
    "seven bytes": bytes(7),
    "only a length": struct.pack("<Q", 2),
    "length 0": struct.pack("<Q", 0) + b"{}",
    "length 1": struct.pack("<Q", 1) + b"{}",
    "length past the end": struct.pack("<Q", 3) + b"{}",
    "length of 100,000,001": struct.pack("<Q", 100_000_001) + b"{}",
    "length 2^63": struct.pack("<Q", 2**63) + b"{}",
    "length 2^64-1": struct.pack("<Q", 2**64 - 1) + b"{}",
    "pickle": b"\x80\x02}.",
    "zip": b"PK\3\4" + bytes(40),
    "gguf": b"GGUF" + bytes(40),
    "text": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
}


@pytest.mark.optimised
@pytest.mark.parametrize("kind", LENGTHS)
def test_bad_beginnings_are_refused(tmp_path: Path, kind: str) -> None:
    refused(tmp_path / "x.safetensors", LENGTHS[kind])


def test_a_sparse_giant_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors(GOOD, DATA))
    os.truncate(path, 1 << 40)
    refused(path, saying="bytes that belong to no tensor")


@pytest.mark.optimised
def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = save({"a": torch.arange(6.0), "b": torch.arange(3)}, {"k": "v"})
    path = tmp_path / "x.safetensors"
    for length in range(len(whole)):
        refused(path, whole[:length])
    path.write_bytes(whole)
    assert len(open_checkpoint(path).entries) == 2


def test_the_error_names_file_tensor_byte_and_remedy(tmp_path: Path) -> None:
    header = {"a": F32(0, 8, 2), "layers.0.w": F32(4, 12, 2)}
    raw = safetensors(header, bytes(12))
    error = refused(tmp_path / "x.safetensors", raw)
    assert error.tensor == "layers.0.w"
    assert error.offset == len(raw) - 12 + 4
    for part in ("x.safetensors", "'layers.0.w'", f"byte {error.offset}", "overlaps 'a'", "Download"):
        assert part in str(error)


def test_good_oddities_are_read(tmp_path: Path) -> None:
    """An empty file of no tensors, padding after the header, and data that are not aligned."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors({}))
    assert not open_checkpoint(path).entries
    for padding in range(9):
        path.write_bytes(safetensors(json.dumps(GOOD).encode() + b" " * padding, DATA))
        entries = open_checkpoint(path).entries
        assert entries["b"].read().tolist() == [[2, 3], [4, 5]]


def test_data_across_their_alignment_are_copied_whole(tmp_path: Path) -> None:
    """More than one chunk of the copy, beginning at every place of a page's first bytes."""
    path = tmp_path / "x.safetensors"
    want = torch.arange(1_300_003, dtype=torch.float64)
    for padding in (1, 7):
        raw = json.dumps(
            {"a": {"dtype": "F64", "shape": [len(want)], "data_offsets": [0, 8 * len(want)]}}
        ).encode()
        raw += b" " * (-len(raw) % 8 + padding)
        path.write_bytes(safetensors(raw, want.numpy().tobytes()))
        entry = open_checkpoint(path).entries["a"]
        assert entry.offset % 8 == padding
        assert entry.read().data_ptr() % 8 == 0
        assert entry.read().equal(want)
        assert entry.read().equal(want)


# Writing.


def test_writing_over_the_file_that_the_tensors_look_at(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write(path, {"a": torch.arange(100_000.0)})
    view = open_checkpoint(path).entries["a"].read()
    write(path, {"a": view, "b": view[:10]})
    assert open_checkpoint(path).entries["a"].read().equal(torch.arange(100_000.0))
    assert view.equal(torch.arange(100_000.0))


def test_permissions_are_those_of_a_new_file(tmp_path: Path) -> None:
    (tmp_path / "new").touch()
    write(tmp_path / "x.safetensors", {"a": torch.ones(1)})
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("new", "x.safetensors")]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("call", ["fsync", "replace", "write"])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "x.safetensors"
    write(path, {"a": torch.ones(3)})

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if call == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    elif call == "replace":
        monkeypatch.setattr(Path, "replace", fail)
    else:
        monkeypatch.setattr("bestiary.files.safetensors.write_tensor", fail)
    with pytest.raises(CheckpointError, match=r"x\.safetensors: cannot be written: No space left"):
        write(path, {"a": torch.zeros(3)})
    monkeypatch.undo()
    assert [each.name for each in tmp_path.iterdir()] == ["x.safetensors"]
    assert open_checkpoint(path).entries["a"].read().tolist() == [1, 1, 1]


def test_an_interrupt_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bestiary.files.safetensors.write_tensor", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "x.safetensors", {"a": torch.zeros(3)})
    assert not list(tmp_path.iterdir())


def test_what_safetensors_cannot_hold_is_refused_before_writing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="complex128"):
        write(tmp_path / "x.safetensors", {"a": torch.zeros(3, dtype=torch.complex128)})
    with pytest.raises(CheckpointError, match="path"):
        write(tmp_path / "x.safetensors", {"../a": torch.zeros(3)})
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        write(tmp_path / "none" / "x.safetensors", {"a": torch.zeros(3)})
