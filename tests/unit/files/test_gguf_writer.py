"""GGUF files of our own: gguf-py and our reader find in them what was given."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor

from bestiary.errors import CheckpointError
from bestiary.files import open_checkpoint
from bestiary.files.gguf import Array
from bestiary.files.gguf_writer import write
from bestiary.files.writing import Planned
from bestiary.formats import FORMATS
from tests.packed import packed

METADATA: dict[str, object] = {
    "general.architecture": "llama",
    "a.yes": True,
    "a.no": False,
    "a.count": 7,
    "a.large": 2**40,
    "a.below": -3,
    "a.far.below": -(2**40),
    "a.number": 0.5,
    "a.text": "é\n",
    "a.texts": ["one", "", "三"],
    "a.numbers": [1, -1, 3],
    "a.floats": [0.5, -1.5],
    "a.flags": [True, False],
    "a.bytes": bytes(range(5)),
    "a.none": [],
    "a.long": [f"token {i}" for i in range(1000)],
}


def planned(name: str, tensor: Tensor, dtype: str = "F32", shape: tuple[int, ...] | None = None) -> Planned:
    return Planned(name, shape or tuple(tensor.shape), dtype, lambda: tensor)


def tensors() -> list[Planned]:
    plain = [
        planned("f32", torch.randn(3, 5)),
        planned("f16", torch.randn(7).half(), "F16"),
        planned("bf16", torch.randn(2, 3, 5).bfloat16(), "BF16"),
        planned("i32", torch.arange(4, dtype=torch.int32), "I32"),
    ]
    kinds = [fmt for fmt in FORMATS.values() if fmt.name not in ("F16", "BF16")]
    return plain + [planned(fmt.name, packed(fmt, 3, 512), fmt.name, (3, 512)) for fmt in kinds]


def test_both_readers_find_what_was_given(tmp_path: Path) -> None:
    path, given, told = tmp_path / "x.gguf", tensors(), list[tuple[int, int]]()
    write(path, METADATA, given, progress=lambda done, total: told.append((done, total)))
    wanted = {key: [*value] if isinstance(value, bytes) else value for key, value in METADATA.items()}
    theirs = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert fields == wanted
    with open_checkpoint(path) as ours:
        assert {k: [*v] if isinstance(v, Array) else v for k, v in ours.metadata.items()} == wanted
        for plan, entry, their in zip(given, ours.entries.values(), theirs.tensors, strict=True):
            assert (plan.name, plan.dtype, plan.shape) == (entry.name, entry.dtype, entry.shape)
            assert (plan.name, plan.dtype) == (their.name, their.tensor_type.name)
            assert torch.equal(entry.read(), plan.make())
            assert their.data.tobytes() == plan.make().contiguous().view(torch.uint8).numpy().tobytes()
    assert theirs.fields["a.numbers"].types[-1] == gguf.GGUFValueType.INT32
    assert theirs.fields["a.number"].types == [gguf.GGUFValueType.FLOAT32]
    assert told[-1] == (sum(plan.nbytes for plan in given),) * 2


def test_arrays_of_another_file_keep_their_type(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_key_value("a", np.arange(300, dtype=np.uint16).tolist(), gguf.GGUFValueType.ARRAY,
                         sub_type=gguf.GGUFValueType.UINT16)  # fmt: skip
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with open_checkpoint(tmp_path / "a.gguf") as source:
        write(tmp_path / "b.gguf", source.metadata, [])
    field = gguf.GGUFReader(tmp_path / "b.gguf").fields["a"]
    assert field.types[-1] == gguf.GGUFValueType.UINT16
    assert field.contents() == [*range(300)]


@pytest.mark.parametrize(
    "value", [None, 2**64, {"a": 1}, [1, "a"], [[1]], [1, 0.5], 1e39, [3_000_000_000], "\ud800"]
)
def test_values_without_a_form_are_refused_before_writing(tmp_path: Path, value: object) -> None:
    with pytest.raises(CheckpointError, match=r"metadata key 'a' = .* has no form in GGUF"):
        write(tmp_path / "x.gguf", {"a": value}, [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (planned("a" * 64, torch.zeros(1)), "63 bytes of name"),
        (planned("../a", torch.zeros(1)), "path"),
        (planned("a", torch.zeros(1, 1, 1, 1, 1)), "1 to 4 dimensions"),
        (planned("a", torch.zeros(1).bool(), "BOOL"), "BOOL"),
        (planned("a", torch.zeros(2, 18, dtype=torch.uint8), "Q4_0", (2, 33)), "33 columns"),
        (planned("a", torch.zeros(3), "F16"), "planned as F16"),
        (planned("a", torch.zeros(3), shape=(4,)), r"planned as F32 \(4,\)"),
    ],
)
def test_what_gguf_cannot_hold_is_refused(tmp_path: Path, plan: Planned, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        write(tmp_path / "x.gguf", {}, [plan])
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_known_before_a_byte_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = os.statvfs(tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((*place[:4], 1, *place[5:])))
    write(tmp_path / "a.gguf", {}, [planned("a", torch.zeros(8))])
    with pytest.raises(CheckpointError, match=r"takes 4\.0 GB, and the disk has 0\.0 GB free"):
        write(tmp_path / "b.gguf", {}, [planned("a", torch.zeros(1).expand(10**9))])
    assert [each.name for each in tmp_path.iterdir()] == ["a.gguf"]


def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.gguf"
    write(path, {"a": 1}, [])

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CheckpointError, match=r"x\.gguf: cannot be written: No space left"):
        write(path, {"a": 2}, [])
    monkeypatch.undo()
    assert [each.name for each in tmp_path.iterdir()] == ["x.gguf"]
    assert open_checkpoint(path).metadata == {"a": 1}
