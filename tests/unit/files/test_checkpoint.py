"""Checkpoints: what a folder holds, indexes of shards, laziness, memory, and values that are no numbers."""

from __future__ import annotations

import gc
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from bestiary.errors import CheckpointError
from bestiary.files import Checkpoint, Entry, open_checkpoint
from bestiary.files.safetensors import write
from tests.unit.files import craft
from tests.unit.files.craft import Gguf, GgufTensor, refused, resident, safetensors

INDEX = "model.safetensors.index.json"
SHARDS = {"one.safetensors": ("a", "b"), "two.safetensors": ("c",)}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two shards and their index."""
    for file, names in SHARDS.items():
        write(tmp_path / file, {name: torch.full((2,), ord(name)) for name in names}, {"file": file})
    return indexed(tmp_path)


def indexed(folder: Path, weight_map: Any = None, **more: Any) -> Path:
    known = {name: file for file, names in SHARDS.items() for name in names}
    index = {
        "metadata": {"total_size": 24},
        "weight_map": known if weight_map is None else weight_map,
        **more,
    }
    (folder / INDEX).write_text(json.dumps(index))
    return folder


# Indexes.


def test_an_index_is_read(model: Path) -> None:
    for path in (model, model / INDEX):
        checkpoint = open_checkpoint(path)
        assert {name: entry.read().tolist() for name, entry in checkpoint.entries.items()} == {
            "a": [97, 97],
            "b": [98, 98],
            "c": [99, 99],
        }
        assert checkpoint.entries["c"].file == model / "two.safetensors"
        assert checkpoint.path == path


def test_an_index_by_another_name_is_found(model: Path) -> None:
    (model / INDEX).rename(model / "adapter_model.safetensors.index.json")
    assert [*open_checkpoint(model).entries] == ["a", "b", "c"]


def test_an_index_of_bin_files_is_read(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model-00001-of-00002.bin")
    torch.save({"b": torch.zeros(2)}, tmp_path / "pytorch_model-00002-of-00002.bin")
    weight_map = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.kind == "bin"
    assert [*checkpoint.entries] == ["a", "b"]


@pytest.mark.optimised
@pytest.mark.parametrize(
    ("weight_map", "saying"),
    [
        ({"a": "one.safetensors", "b": "one.safetensors"}, None),
        ({"a": "one.safetensors", "c": "two.safetensors"}, "which the index does not list"),
        (
            {"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors"},
            "places in 'two.safetensors'",
        ),
        (
            {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors", "d": "two.safetensors"},
            "missing",
        ),
        ({"a": "one.safetensors", "b": "one.safetensors", "c": "three.safetensors"}, "No such file"),
        ({"a": INDEX, "b": "one.safetensors"}, "no safetensors file"),
        ({}, "no weight_map"),
        ([], "no weight_map"),
        ("one.safetensors", "no weight_map"),
        ({"a": 1}, "no string"),
        ({"a": None}, "no string"),
        ({"a": ["one.safetensors"]}, "no string"),
        ({f"t{i}": f"{i}.safetensors" for i in range(1001)}, "more than 1000"),
    ],
)
def test_index_and_shards_must_agree(model: Path, weight_map: Any, saying: str | None) -> None:
    indexed(model, weight_map)
    if saying is None:
        if [*open_checkpoint(model).entries] != ["a", "b"]:
            pytest.fail("shards that are not named play no part")
    else:
        refused(model, saying=saying)


@pytest.mark.optimised
def test_a_tensor_in_two_shards_is_refused(model: Path) -> None:
    write(model / "two.safetensors", {name: torch.ones(2) for name in "ac"})
    error = refused(model, saying="which the index places in 'one.safetensors'")
    if (error.tensor, Path(str(error.file)).name) != ("a", "two.safetensors"):
        pytest.fail(str(error))


@pytest.mark.optimised
def test_missing_tensors_are_listed_and_counted(model: Path) -> None:
    more = {f"missing{i:02}": "one.safetensors" for i in range(12)}
    indexed(model, {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors", **more})
    message = str(refused(model, saying="12 tensors are missing"))
    if "missing09, ..." not in message or "missing10" in message:
        pytest.fail(message)


@pytest.mark.optimised
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b'{"weight_map": {"a": "one.safetensors", "a": "two.safetensors"}}',
        b'{"weight_map": NaN}',
        b'{"metadata": {"total_size": 99999999999999999999999}, "weight_map": {"a": "one.safetensors"}}',
        b'{"weight_map":' + b"[" * 100_000,
        b"\xff\xfe{\0}\0",
        b'{"weight_map": {"\\ud83d": "one.safetensors"}}',
    ],
)
def test_bad_indexes_are_refused(model: Path, content: bytes) -> None:
    (model / INDEX).write_bytes(content)
    refused(model)


@pytest.mark.optimised
def test_a_damaged_shard_is_named(model: Path) -> None:
    whole = (model / "two.safetensors").read_bytes()
    (model / "two.safetensors").unlink()
    (model / "two.safetensors").write_bytes(whole[:-1])
    error = refused(model)
    if Path(str(error.file)).name != "two.safetensors":
        pytest.fail(str(error))


# Folders.


def test_safetensors_before_bin_and_an_index_before_one_file(model: Path) -> None:
    torch.save({"bin": torch.ones(1)}, model / "pytorch_model.bin")
    write(model / "model.safetensors", {"single": torch.ones(1)})
    (model / "pytorch_model.bin.index.json").write_text("{}")
    seen = []
    for away in (INDEX, "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin"):
        try:
            seen.append(sorted(open_checkpoint(model).entries))
        except CheckpointError as error:
            seen.append(["no weight_map"] if "no weight_map" in str(error) else [str(error)])
        (model / away).unlink()
    assert seen == [["a", "b", "c"], ["single"], ["no weight_map"], ["bin"]]


@pytest.mark.parametrize(
    "name", ["adapter.safetensors", "weights.bin", "m-Q4_0.gguf", "consolidated.00.pth", "m.pt", "x.ckpt"]
)
def test_the_only_weight_file_of_a_folder_is_taken(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text("x")
    if name.endswith(".safetensors"):
        write(tmp_path / name, {"w": torch.ones(1)})
    elif name.endswith(".gguf"):
        (tmp_path / name).write_bytes(Gguf(tensors=[GgufTensor("w", (1,), 0, bytes(4))]).build())
    else:
        torch.save({"w": torch.ones(1)}, tmp_path / name)
    assert [*open_checkpoint(tmp_path).entries] == ["w"]


@pytest.mark.optimised
def test_several_or_no_weight_files_are_not_guessed_at(tmp_path: Path) -> None:
    refused(tmp_path, saying="holds no weight file")
    for quant in ("Q4_0", "Q8_0"):
        (tmp_path / f"m-{quant}.gguf").write_bytes(Gguf().build())
    refused(tmp_path, saying="m-Q4_0.gguf, m-Q8_0.gguf")
    (tmp_path / "model.gguf.index.json").write_text("{}")
    refused(tmp_path / "model.gguf.index.json", saying="no index of weights")


def test_a_blob_without_a_suffix_is_known_by_how_it_begins(tmp_path: Path) -> None:
    write(tmp_path / "aaaa", {"w": torch.ones(1)})
    (tmp_path / "bbbb").write_bytes(Gguf(tensors=[GgufTensor("w", (1,), 0, bytes(4))]).build())
    torch.save({"w": torch.ones(1)}, tmp_path / "cccc")
    torch.save({"w": torch.ones(1)}, tmp_path / "dddd", _use_new_zipfile_serialization=False)
    kinds = [open_checkpoint(tmp_path / name).kind for name in ("aaaa", "bbbb", "cccc", "dddd")]
    assert kinds == ["safetensors", "gguf", "bin", "bin"]


@pytest.mark.optimised
@pytest.mark.parametrize(
    "content",
    [b"x", b"[]" * 50, b"\x93NUMPY" + bytes(90), b"\x89HDF" + bytes(90), b"version https://git-lfs"],
)
def test_what_is_no_weight_file_is_refused(tmp_path: Path, content: bytes) -> None:
    refused(tmp_path / "blob", content, saying="no weight file known here")


@pytest.mark.optimised
def test_the_suffix_is_believed_and_the_content_is_not(tmp_path: Path) -> None:
    """A pickle that is called .safetensors is never read as a pickle."""
    torch.save({"w": torch.ones(1)}, tmp_path / "a")
    write(tmp_path / "b", {"w": torch.ones(1)})
    (tmp_path / "c").write_bytes(Gguf().build())
    for kind, suffixes in {
        "a": (".safetensors", ".gguf"),
        "b": (".bin", ".pt", ".gguf"),
        "c": (".bin", ".safetensors"),
    }.items():
        for suffix in suffixes:
            shutil.copy(tmp_path / kind, tmp_path / f"x{suffix}")
            refused(tmp_path / f"x{suffix}")


# Memory.


def test_entries_and_checkpoints_show_themselves(model: Path) -> None:
    checkpoint = open_checkpoint(model)
    assert "3 tensors, 48 bytes" in repr(checkpoint)
    assert isinstance(checkpoint, Checkpoint)
    entry = checkpoint.entries["a"]
    assert isinstance(entry, Entry)
    assert "load" not in repr(entry)
    assert (entry.shape, entry.dtype, entry.nbytes) == ((2,), "I64", 16)
    raw = entry.file.read_bytes()[entry.offset : entry.offset + entry.nbytes]
    assert struct.unpack("<2q", raw) == (97, 97)


@pytest.mark.parametrize("name", ["x.safetensors", "x.bin", "x.gguf"])
def test_tensors_are_views_of_one_private_map(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "x.safetensors":
        write(path, {"w": torch.arange(5.0)})
    elif name == "x.bin":
        torch.save({"w": torch.arange(5.0)}, path)
    else:
        path.write_bytes(
            Gguf(tensors=[GgufTensor("w", (5,), 0, torch.arange(5.0).numpy().tobytes())]).build()
        )
    before = path.read_bytes()
    entry = open_checkpoint(path).entries["w"]
    one, two = entry.read(), entry.read()
    assert one.data_ptr() == two.data_ptr(), "no copy"
    one += 1
    assert two.tolist() == [1, 2, 3, 4, 5]
    assert open_checkpoint(path).entries["w"].read().tolist() == [0, 1, 2, 3, 4], "another map is another's"
    assert path.read_bytes() == before


def test_tensors_outlive_the_checkpoint(model: Path) -> None:
    with open_checkpoint(model) as checkpoint:
        entry = checkpoint.entries["a"]
        tensor = entry.read()
        part = tensor[1:]
    del checkpoint, tensor
    gc.collect()
    assert part.tolist() == [97]
    with pytest.raises(CheckpointError, match="was closed"):
        entry.read()
    (model / "one.safetensors").unlink()
    assert part.tolist() == [97]


def test_maps_are_let_go(model: Path) -> None:
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count(str(model))

    if not Path("/proc/self/maps").exists():
        return
    checkpoint = open_checkpoint(model)
    tensor = checkpoint.entries["a"].read()
    assert mapped() == 2
    checkpoint.close()
    del checkpoint
    assert mapped() == 1
    del tensor
    assert mapped() == 0


def test_a_file_that_is_cut_while_open_is_an_error_and_no_signal(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write(path, {"a": torch.ones(10_000), "b": torch.ones(10_000)})
    checkpoint = open_checkpoint(path)
    os.truncate(path, 4096)
    with pytest.raises(CheckpointError, match="was cut to 4,096 bytes"):
        checkpoint.entries["b"].read()


def test_opening_reads_headers_only(tmp_path: Path) -> None:
    """A sparse file of 64 GiB opens at once, in no memory, and its last tensor can be read."""
    path = tmp_path / "x.safetensors"
    size = 16 << 30
    header = {
        name: {"dtype": "F32", "shape": [size // 4], "data_offsets": [i * size, (i + 1) * size]}
        for i, name in enumerate("abcd")
    }
    raw = json.dumps(header).encode()
    path.write_bytes(safetensors(raw + b" " * (-len(raw) % 8)))  # aligned, or reading would copy
    os.truncate(path, path.stat().st_size + 4 * size)
    before = resident()
    checkpoint = open_checkpoint(path)
    assert checkpoint.nbytes == 4 * size
    last = checkpoint.entries["d"].read()
    assert last[-1].item() == 0
    last[-1] = 1
    assert last[-2:].tolist() == [0, 1]
    assert resident() - before < 32 << 20


MEASURE = """
import re, sys
from pathlib import Path
import torch
from bestiary.files import open_checkpoint
torch.set_num_threads(1)
open_checkpoint(sys.argv[1] + ".small")
def peak():  # of this program; getrusage begins with that of the process it was started from
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
checkpoint = open_checkpoint(sys.argv[1])
kept = [entry.read() for entry in checkpoint.entries.values()]
assert all(tensor.amax().item() == 1 for tensor in kept)
print(peak() - before)
"""


def save_at(path: Path, tensors: dict[str, torch.Tensor], form: str) -> None:
    """Save for torch.load; in the form before 1.6 with data that lie across their alignment, or do not."""
    for pad in range(2):
        content = {name + "x" * pad * (i == 0): tensor for i, (name, tensor) in enumerate(tensors.items())}
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
        offsets = {entry.offset % 2 for entry in open_checkpoint(path).entries.values()}
        if form == "zip" or offsets == {int(form == "legacy")}:
            return
    raise AssertionError(offsets)


@pytest.mark.parametrize("form", ["safetensors", "zip", "legacy", "legacy, aligned by chance"])
def test_the_peak_is_the_file_and_little_more(tmp_path: Path, form: str) -> None:
    tensors = {f"w{i}": torch.ones(1024, 1024, dtype=torch.bfloat16) for i in range(32)}  # 64 MiB
    for path, content in ((tmp_path / "x", tensors), (tmp_path / "x.small", {"w": torch.ones(1)})):
        if form == "safetensors":
            save_file(content, path)
        else:
            save_at(path, content, form)
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "x")], capture_output=True, text=True, check=True
    )
    assert (
        0.9 * (tmp_path / "x").stat().st_size
        <= int(ran.stdout) << 10
        <= 1.2 * (tmp_path / "x").stat().st_size
    )


def test_check_finite_names_tensors_of_all_shards(model: Path) -> None:
    write(model / "two.safetensors", {"c": torch.tensor([1.0, float("nan")])})
    assert open_checkpoint(model).check_finite() == ["c"]


def test_craft_builds_what_the_readers_read(tmp_path: Path) -> None:
    """The handmade files of these tests are good until something is done to them."""

    def pickle(last: bytes) -> bytes:
        return craft.pickled(
            craft.state_dict({"w": craft.tensor(craft.storage("0", 1, last=last), [1], [1])})
        )

    for content in (
        craft.saved(pickle(b""), {"0": bytes(4)}),
        craft.legacy(pickle(b"N"), {"0": (1, bytes(4))}),
    ):
        (tmp_path / "x.bin").write_bytes(content)
        assert torch.load(tmp_path / "x.bin", weights_only=True)["w"].tolist() == [0]
        assert open_checkpoint(tmp_path / "x.bin").entries["w"].read().tolist() == [0]
