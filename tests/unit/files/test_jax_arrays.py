"""Folders of pickled arrays: each file read as data, its bytes where they lie, or refused."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from bestiary.files import open_checkpoint
from bestiary.files.pickles import MOST_BYTES
from tests.unit.files import craft
from tests.unit.files.craft import refused, resident

INTEGERS = np.arange(-12, 12, dtype=np.int8).reshape(2, 4, 3)
SCALES = np.array([[[1.0, 0.5, 3.0], [2.0, 0.25, 1.5]], [[4.0, 1.0, 0.125], [0.75, 7.0, 1.0]]], np.float32)


def write(folder: Path, *values: bytes) -> Path:
    for number, value in enumerate(values):
        (folder / f"tensor{number:05d}_000").write_bytes(craft.pickled(value, 4))
    return folder


def of(values: np.ndarray) -> bytes:
    codes = {"int8": "i1", "float32": "f4", "float16": "f2"}
    return craft.array(codes[values.dtype.name], values.shape, values.tobytes())


def in_bfloat16(values: np.ndarray) -> bytes:
    return craft.array("bfloat16", values.shape, (values.view(np.uint32) >> 16).astype(np.uint16).tobytes())


def test_arrays(tmp_path: Path) -> None:
    write(tmp_path, of(SCALES), in_bfloat16(SCALES), of(SCALES.astype(np.float16)), of(INTEGERS))
    found = open_checkpoint(tmp_path)
    assert (found.kind, list(found.entries)) == ("jax", [f"tensor0000{n}_000" for n in range(4)])
    assert [entry.dtype for entry in found.entries.values()] == ["F32", "BF16", "F16", "I8"]
    for entry, want in zip(found.entries.values(), (SCALES, SCALES, SCALES, INTEGERS), strict=True):
        assert torch.equal(entry.read().float(), torch.from_numpy(want).float())


def test_what_numpy_pickles_today(tmp_path: Path) -> None:
    for protocol in (3, 4, 5):
        (tmp_path / "tensor00000_000").write_bytes(pickle.dumps(SCALES.copy(), protocol))
        if protocol < 5:
            (entry,) = open_checkpoint(tmp_path).entries.values()
            assert torch.equal(entry.read(), torch.from_numpy(SCALES))
        else:  # as a buffer, by another name
            refused(tmp_path, saying="numpy._core.numeric._frombuffer")
        (tmp_path / "tensor00000_000").unlink()


@pytest.mark.parametrize("scales", [of, in_bfloat16], ids=["float32", "bfloat16"])
def test_integers_are_multiplied_by_the_scales_of_their_group(tmp_path: Path, scales: object) -> None:
    write(tmp_path, craft.quantised(of(INTEGERS), scales(SCALES)))  # type: ignore[operator]
    (entry,) = open_checkpoint(tmp_path).entries.values()
    assert (entry.dtype, entry.shape) == ("F32", (2, 4, 3))
    rows = np.repeat(SCALES, 2, axis=1)  # two groups of two input channels each
    assert torch.equal(entry.read(), torch.from_numpy(INTEGERS * rows))


def test_the_folder_of_a_download(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("Grok-1")
    (tmp_path / "ckpt-0").mkdir()
    write(tmp_path / "ckpt-0", of(SCALES), of(INTEGERS))
    assert len(open_checkpoint(tmp_path).entries) == len(open_checkpoint(tmp_path / "ckpt-0").entries) == 2


def test_a_large_array_stays_in_the_file(tmp_path: Path) -> None:
    """Its bytes, more than a pickle may have otherwise, lie between the instructions around them."""
    count = MOST_BYTES + 4096
    small = craft.pickled(craft.array("i1", [count], b""), 4)
    cut = small.index(b"B" + bytes(4)) + 1
    path = tmp_path / "tensor00000_000"
    with path.open("wb") as file:
        file.write(small[:cut] + struct.pack("<I", count))
        file.seek(count, 1)  # a hole, which takes no disk
        file.write(small[cut + 4 :])
    before = resident()
    (entry,) = open_checkpoint(tmp_path).entries.values()
    assert resident() - before < MOST_BYTES // 16
    assert entry.read().shape == (count,)
    assert entry.read()[-1] == 0


@pytest.mark.parametrize(
    ("value", "saying"),
    {
        "a command": (craft.name("os", "system") + b"(" + craft.text("true") + b"tR", "os.system"),
        "another class": (craft.name("__main__", "Weights") + b")\x81", "__main__.Weights"),
        "no array": (craft.number(7), "neither an array nor"),
        "a list": (b"](" + of(SCALES) + b"e", "neither an array nor"),
        "objects": (craft.array("O8", [1], bytes(8)), "type 'O8'"),
        "big-endian": (craft.array("f4", [1], bytes(4), order=">"), "not little-endian"),
        "by columns": (craft.array("f4", [2, 2], bytes(16), fortran=b"\x88"), "row by row"),
        "too few bytes": (craft.array("f4", [2, 2], bytes(12)), "does not take the 12 bytes"),
        "a negative size": (craft.array("f4", [-1], b""), "no list of sizes"),
        "a huge shape": (craft.array("i1", [2**40, 2**40], b""), "does not take"),
        "integers alone": (craft.quantised(of(INTEGERS), craft.number(1)), "neither an array nor"),
        "floats for integers": (craft.quantised(of(SCALES), of(SCALES)), "do not go with"),
        "integers for scales": (craft.quantised(of(INTEGERS), of(INTEGERS)), "do not go with"),
        "other experts": (craft.quantised(of(INTEGERS), of(SCALES[:1])), "do not go with"),
        "groups that do not divide": (
            craft.quantised(of(INTEGERS), craft.array("f4", [2, 3, 3], bytes(72))),
            "do not go with",
        ),
        "no groups": (craft.quantised(of(INTEGERS), craft.array("f4", [2, 0, 3], b"")), "do not go with"),
    }.values(),
)
def test_what_is_no_array_is_refused(tmp_path: Path, value: bytes, saying: str) -> None:
    refused(write(tmp_path, value), saying=saying)


def test_a_file_of_the_wrong_length_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, of(SCALES)) / "tensor00000_000"
    whole = path.read_bytes()
    for content, saying in ((whole + b"more", "bytes follow the end"), (whole[:-30], "cut")):
        path.unlink()  # not overwritten: it may be mapped
        path.write_bytes(content)
        refused(tmp_path, saying=saying)


def test_a_gap_in_the_numbers_is_refused(tmp_path: Path) -> None:
    write(tmp_path, of(SCALES), of(SCALES), of(SCALES))
    (tmp_path / "tensor00001_000").unlink()
    refused(tmp_path, saying="lacks tensor00001_000")
