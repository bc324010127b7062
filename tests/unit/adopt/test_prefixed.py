"""A P-tuned prefix alone beside its base becomes the model that both are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bestiary.adopt import adopt, find
from bestiary.errors import CheckpointError, RequestError
from bestiary.load import load
from tests.goldens import STORED, cases
from tests.parity.test_references import assert_close, hidden_states

TABLE = "transformer.prefix_encoder.embedding.weight"


def base(folder: Path) -> Path:
    """Write ChatGLM-6B's case, without anything else that lies there."""
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((STORED / "chatglm1-6b" / name).read_bytes())
    return folder


def test_a_prefix_goes_beside_its_base(tmp_path: Path) -> None:
    below, tuned = base(tmp_path / "base"), tmp_path / "checkpoint-3000"
    tuned.mkdir()
    config = json.loads((below / "config.json").read_text())
    rows = torch.randn(4, 2 * config["num_layers"] * config["hidden_size"]).half()
    torch.save({TABLE: rows}, tuned / "pytorch_model.bin")
    made = adopt(find(str(tuned), base=str(below)), tmp_path / "made")
    loaded = load(made.path)
    assert loaded.config["pre_seq_len"] == 4
    got, want = load_file(made.path / "model.safetensors"), load_file(below / "model.safetensors")
    assert got.keys() - want.keys() == {TABLE}
    assert torch.equal(got[TABLE], rows)
    assert all(torch.equal(tensor, want[name]) for name, tensor in got.items() if name != TABLE)


def test_a_prefix_of_another_base_is_refused(tmp_path: Path) -> None:
    below, tuned = base(tmp_path / "base"), tmp_path / "tuned"
    tuned.mkdir()
    save_file({TABLE: torch.randn(4, 10)}, tuned / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"has shape \[4, 10\], and the base makes it.*another base"):
        find(str(tuned), base=str(below))
    save_file({"transformer.prefix_encoder.trans.0.weight": torch.ones(2, 2)}, tuned / "model.safetensors")
    with pytest.raises(CheckpointError, match="has no table of positions"):
        find(str(tuned), base=str(below))
    save_file({"other.weight": torch.ones(2)}, tuned / "model.safetensors")
    with pytest.raises(RequestError, match=r"how .* differs from its base is not known"):
        find(str(tuned), base=str(below))


@pytest.mark.parametrize("case", cases("chatglm?-6b-ptuning"), ids=lambda p: p.name)
def test_apart_and_together_are_one_model(case: Path, tmp_path: Path) -> None:
    """The reference case, its prefix taken out into a file of its own."""
    whole, want = load_file(case / "model.safetensors"), load_file(case / "expected.safetensors")
    config = json.loads((case / "config.json").read_text())
    prefix = {name: tensor for name, tensor in whole.items() if "prefix_encoder" in name}
    below, tuned = tmp_path / "base", tmp_path / "tuned"
    for folder, tensors in ((below, {k: t for k, t in whole.items() if k not in prefix}), (tuned, prefix)):
        folder.mkdir()
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / "model.safetensors")
    said = {key: value for key, value in config.items() if key not in ("pre_seq_len", "prefix_projection")}
    (below / "config.json").write_text(json.dumps(said))
    made = adopt(find(str(tuned), base=str(below)), tmp_path / "made")
    _, logits = hidden_states(load(made.path), want["input_ids"])
    assert_close(logits, want["logits"], 2e-4, "logits")
