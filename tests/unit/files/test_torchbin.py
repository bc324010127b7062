"""torch.save files: equal to torch.load on good ones; no file stands for more memory than it has bytes."""

from __future__ import annotations

import argparse
import collections
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from bestiary.files import open_checkpoint
from bestiary.files.source import DTYPES
from tests.goldens import cases, root
from tests.unit.files import craft
from tests.unit.files.craft import (
    Member,
    archive,
    legacy,
    number,
    pickled,
    saved,
    state_dict,
    storage,
)
from tests.unit.files.test_safetensors import assert_same_bits, random_tensor

FORMS = {"zip": True, "legacy": False}
# What torch can read back in the form before 1.6: it writes the others too, as storages without a type.
OLD_TYPES = [name for name in DTYPES if name not in ("U16", "U32", "U64", "F8_E4M3", "F8_E5M2")]


def assert_reads_as_torch_load(path: Path, inner: str | None = None) -> None:
    want = torch.load(path, map_location="cpu", weights_only=False)
    want = want if inner is None else want[inner]
    entries = open_checkpoint(path).entries
    tensors = {name: value for name, value in want.items() if isinstance(value, torch.Tensor)}
    assert entries.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert_same_bits(entries[name].read(), tensor.detach())
        assert entries[name].nbytes == tensor.numel() * tensor.itemsize


# Beside torch.load.


@pytest.mark.parametrize(
    ("form", "dtype"), [*(("zip", dtype) for dtype in DTYPES), *(("legacy", dtype) for dtype in OLD_TYPES)]
)
def test_every_type(tmp_path: Path, form: str, dtype: str) -> None:
    tensors = {"a": random_tensor(DTYPES[dtype], 3, 4), "b": random_tensor(DTYPES[dtype], 5)}
    torch.save(tensors, tmp_path / "x.bin", _use_new_zipfile_serialization=FORMS[form])
    assert_reads_as_torch_load(tmp_path / "x.bin")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_views_of_every_kind(tmp_path: Path, form: str, protocol: int) -> None:
    base, other = torch.randn(6, 8), torch.randn(4, 3, 5)
    tied = torch.randn(3)
    tensors = collections.OrderedDict(
        whole=torch.arange(7),
        first=base[:3],
        second=base[3:],
        turned=torch.randn(5, 3).t(),
        column=torch.randn(4, 4)[:, 1],
        stepped=torch.arange(20)[2::3],
        permuted=other.permute(2, 0, 1),
        corner=torch.randn(5, 5)[1:3, 2:4],
        one=torch.randn(4, 1)[:, :1],
        scalar=torch.tensor(7),
        empty=torch.empty(0),
        none=torch.empty(0, 3),
        tied=tied,
        also_tied=tied,
        flags=torch.tensor([True, False, True]),
        parameter=torch.nn.Parameter(torch.randn(2, 2)),
        buffer=torch.arange(9).view(1, 9),
        minus_one=torch.randn(1, 1, 1),
        expanded_once=torch.randn(3).expand(1, 3),
    )
    path = tmp_path / "x.bin"
    torch.save(tensors, path, _use_new_zipfile_serialization=FORMS[form], pickle_protocol=protocol)
    assert_reads_as_torch_load(path)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("inner", ["state_dict", "model_state_dict", "model", "module"])
def test_tensors_that_lie_one_level_down(tmp_path: Path, form: str, inner: str) -> None:
    content = {
        inner: {"w": torch.randn(3), "n": 1, "name": "x", "none": None},
        "args": argparse.Namespace(
            layers=3, name="x", betas=(0.9, 0.98), nested={"a": [1, {"b": 2}]}, rate=1e-4
        ),
        "iteration": 100_000,
        "loss": float("nan"),
        "rng": torch.ByteTensor(16),
        "optimizer": {
            "state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.randn(3)}},
            "groups": [{"lr": 0.1}],
        },
        "device": torch.device("cuda:1"),
        "size": torch.Size([2, 3]),
        "dtype": torch.bfloat16,
        "bytes": b"abc",
        "numpy": np.float64(1.5),
        "array": np.arange(3),
    }
    path = tmp_path / "x.pt"
    torch.save(content, path, _use_new_zipfile_serialization=FORMS[form])
    assert_reads_as_torch_load(path, inner)
    metadata = open_checkpoint(path).metadata
    assert metadata["args"] == vars(content["args"])
    assert metadata["iteration"] == 100_000
    assert metadata["size"] == (2, 3)
    assert {"rng", "optimizer", "array", "device", "dtype"}.isdisjoint(metadata)


@pytest.mark.parametrize("form", FORMS)
def test_a_modules_state_dict_with_its_metadata(tmp_path: Path, form: str) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Embedding(5, 3))
    path = tmp_path / "pytorch_model.bin"
    torch.save(module.state_dict(), path, _use_new_zipfile_serialization=FORMS[form])
    assert_reads_as_torch_load(path)
    assert open_checkpoint(tmp_path).kind == "bin"


def test_a_parameter_with_attributes(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.randn(3))
    parameter.tensor_model_parallel = True  # type: ignore[attr-defined]
    torch.save({"w": parameter}, tmp_path / "x.bin")
    assert b"_rebuild_parameter_with_state" in (tmp_path / "x.bin").read_bytes()
    assert_reads_as_torch_load(tmp_path / "x.bin")


def test_a_file_without_checksums(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.randn(3)}, tmp_path / "x.bin")
    finally:
        torch.serialization.set_crc32_options(before)
    assert_reads_as_torch_load(tmp_path / "x.bin")


def test_what_python_2_wrote(tmp_path: Path) -> None:
    """Strings as SHORT_BINSTRING, an OrderedDict as a call with pairs."""

    def old(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode()

    stored = (
        b"("
        + old("storage")
        + craft.name("torch", "FloatStorage")
        + old("9")
        + old("cuda:0")
        + number(2)
        + b"NtQ"
    )
    pairs = b"](](" + old("w") + craft.tensor(stored, [2], [1]) + b"ee"
    pickle = pickled(craft.name("collections", "OrderedDict") + b"(" + pairs + b"tR")
    path = tmp_path / "x.bin"
    path.write_bytes(legacy(pickle, {"9": (2, struct.pack("<2f", 1.5, -2))}))
    assert open_checkpoint(path).entries["w"].read().tolist() == [1.5, -2]


def test_sixty_four_bit_archives(tmp_path: Path) -> None:
    """Sizes and offsets in the extra field of the directory, as in an archive of more than 4 GiB."""
    pickle = pickled(state_dict({"w": craft.tensor(storage("0", 2), [2], [1])}))
    plain = saved(pickle, {"0": struct.pack("<2f", 1.5, -2)}, wide=True)
    at = plain.index(b"PK\1\2", plain.index(b"PK\1\2") + 1)  # byteorder's entry, of 6 bytes
    entry = bytearray(plain[at : at + 46 + len("archive/byteorder")])
    begin = struct.unpack_from("<L", entry, 42)[0]
    struct.pack_into("<L", entry, 20, 0xFFFFFFFF)
    struct.pack_into("<L", entry, 24, 0xFFFFFFFF)
    struct.pack_into("<L", entry, 42, 0xFFFFFFFF)
    extra = struct.pack("<2H", 0xAAAA, 3) + b"abc" + struct.pack("<2H3Q", 1, 24, 6, 6, begin)
    struct.pack_into("<H", entry, 30, len(extra))
    wider = bytearray(plain[:at] + entry + extra + plain[at + len(entry) :])
    for signature, position, kind in ((b"PK\6\6", 40, "<Q"), (b"PK\6\7", 8, "<Q"), (b"PK\5\6", 12, "<L")):
        place = wider.rindex(signature) + position
        struct.pack_into(kind, wider, place, struct.unpack_from(kind, wider, place)[0] + len(extra))
    path = tmp_path / "x.bin"
    path.write_bytes(wider)
    assert zipfile.ZipFile(path).testzip() is None
    assert open_checkpoint(path).entries["w"].read().tolist() == [1.5, -2]


@given(
    st.lists(
        st.tuples(st.sampled_from(OLD_TYPES), st.lists(st.integers(0, 4), max_size=4), st.integers(0, 3)),
        max_size=5,
    ),
    st.booleans(),
)
def test_any_tensors_read_as_by_torch_load(spec: list[tuple[str, list[int], int]], new: bool) -> None:
    buffer = io.BytesIO()
    tensors = {}
    for at, (dtype, shape, turn) in enumerate(spec):
        tensor = random_tensor(DTYPES[dtype], *shape)
        order = [(i + turn) % len(shape) for i in range(len(shape))]
        tensors[f"t{at}"] = tensor.permute(order)[turn % 2 :: turn % 3 + 1] if shape else tensor
    torch.save({**tensors, "last": torch.ones(1)}, buffer, _use_new_zipfile_serialization=new)
    path = Path("/dev/shm" if Path("/dev/shm").is_dir() else "/tmp") / "bestiary-any.bin"
    try:
        path.write_bytes(buffer.getvalue())
        assert_reads_as_torch_load(path)
    finally:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("case", cases("format-bin-*"), ids=lambda case: case.name)
def test_reference_files(case: Path) -> None:
    checkpoint = open_checkpoint(case)
    want = load_file(case / "dequantized.safetensors")
    assert checkpoint.kind == "bin"
    assert checkpoint.entries.keys() >= want.keys()
    for name, tensor in want.items():
        torch.testing.assert_close(checkpoint.entries[name].read().float(), tensor, rtol=0, atol=0)


def other_pickles() -> list[Path]:
    folder = root()
    found = [] if folder is None else [p for kind in ("pt", "pth", "ckpt") for p in folder.rglob(f"*.{kind}")]
    return sorted(found)


@pytest.mark.parametrize("path", other_pickles(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_reference_files_of_training_runs(path: Path, tmp_path: Path) -> None:
    content = torch.load(path, map_location="cpu", weights_only=False)
    inner = next((key for key in ("model_state_dict", "model", "module") if key in content), None)
    alone = tmp_path / f"alone{path.suffix}"  # of several parts, one
    alone.write_bytes(path.read_bytes())
    assert_reads_as_torch_load(alone, inner)


# Made by hand.

FLOATS = struct.pack("<12f", *range(12))


def test_good_views_of_the_same_storage_are_read(tmp_path: Path) -> None:
    views = {
        "one element, any stride": (craft.tensor(storage("0", 12), [1], [2**70]), [0]),
        "one element, stride 0": (craft.tensor(storage("0", 12), [1, 2], [0, 1]), [[0, 1]]),
        "empty at the end": (craft.tensor(storage("0", 12), [0], [1], 12), []),
        "empty past the end": (craft.tensor(storage("0", 12), [0, 2], [2, 1], 14), []),
        "turned": (craft.tensor(storage("0", 12), [2, 3], [1, 2], 6), [[6, 8, 10], [7, 9, 11]]),
        "scalar": (craft.tensor(storage("0", 12), [], [], 3), 3),
        "every third": (craft.tensor(storage("0", 12), [4], [3]), [0, 3, 6, 9]),
        "old maker": (craft.tensor(storage("0", 12), [2], [1], 4), [4, 5]),
    }
    for name, (view, want) in views.items():
        pickle = pickled(state_dict({"w": view}))
        for content in (saved(pickle, {"0": FLOATS}), legacy(pickle, {"0": (12, FLOATS)})):
            (tmp_path / "x.bin").write_bytes(content)
            assert open_checkpoint(tmp_path / "x.bin").entries["w"].read().tolist() == want, name


PICKLE = pickled(state_dict({"w": craft.tensor(storage("0", 12), [12], [1])}))
PARTS = [Member("a/data.pkl", PICKLE), Member("a/byteorder", b"little"), Member("a/data/0", FLOATS)]


def test_unaligned_storages_are_read(tmp_path: Path) -> None:
    """Python's zipfile, unlike torch, puts data anywhere."""
    for pad in range(9):
        path = tmp_path / "x.bin"
        path.write_bytes(
            archive([Member("a/data.pkl", PICKLE), Member("a/" + "v" * (pad + 1), b"3"), *PARTS[1:]])
        )
        assert open_checkpoint(path).entries["w"].read().tolist() == [*range(12)]


def test_booleans_of_other_bytes_are_true(tmp_path: Path) -> None:
    pickle = pickled(state_dict({"w": craft.tensor(storage("0", 4, "BoolStorage"), [4], [1])}))
    (tmp_path / "x.bin").write_bytes(saved(pickle, {"0": b"\0\1\2\xff"}))
    read = open_checkpoint(tmp_path / "x.bin").entries["w"].read()
    assert read.view(torch.uint8).tolist() == [0, 1, 1, 1]
