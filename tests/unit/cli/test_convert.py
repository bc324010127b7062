"""convert: what is written, said and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bestiary.files import open_checkpoint
from tests import tiny

from .conftest import Bestiary


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.make("llama", tmp_path / "model")
    return tmp_path / "model"


def test_what_is_written_is_said(bestiary: Bestiary, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "out" / "x.gguf"
    options = ("convert", str(folder), "--to", str(file), "--type", "q8_0", "--no-tokenizer")
    ran = bestiary(*options, "--dry-run")
    assert ran.code == 0
    assert not file.exists()
    ran = bestiary(*options)
    assert (ran.code, ran.out.split()[:3]) == (0, ["F16", "20", "tensors"])
    assert "blk.0.attn_q.weight is F16: its rows do not fill the blocks of Q8_0" in ran.err
    assert (
        f"written: llama, {sum(e.nbytes for e in open_checkpoint(file).entries.values()) / 1e3:.1f} kB"
        in ran.err
    )
    ran = bestiary(*options, "--overwrite", "--json")
    said = json.loads(ran.out)
    assert said["files"] == [str(file)]
    assert said["types"]["F16"] == 20
    assert said["fallen_back"]["blk.0.attn_q.weight"] == "Q8_0"


def test_a_folder_as_safetensors(bestiary: Bestiary, folder: Path, tmp_path: Path) -> None:
    ran = bestiary("convert", str(folder), "--to", str(tmp_path / "out"), "--type", "bf16")
    assert ran.code == 0
    assert "note: there is no tokenizer beside the weights to copy" in ran.err
    assert {entry.dtype for entry in open_checkpoint(tmp_path / "out").entries.values()} == {"BF16"}


def test_refusals_name_the_remedy(bestiary: Bestiary, folder: Path, tmp_path: Path) -> None:
    file = str(tmp_path / "x.gguf")
    for options, said, remedy in (
        (("--type", "q9"), "type = 'q9' is not written; choose f32", ""),
        (("--type", "q4_0", "--format", "safetensors"), "safetensors has no type for q4_0", "--format gguf"),
        ((), "no tokenizer in this folder", "--no-tokenizer"),
    ):
        ran = bestiary("convert", str(folder), "--to", file, *options)
        assert ran.code != 0
        assert said in ran.err
        assert remedy in ran.err
    assert not Path(file).exists()
