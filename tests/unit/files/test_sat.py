"""Folders of tensor-parallel ranks, cut here as SwissArmyTransformer cuts them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from bestiary.errors import CheckpointError
from bestiary.files import open_checkpoint

LAYER = "transformer.layers.0."
WHOLE = {
    "transformer.word_embeddings.weight": torch.randn(12, 6),
    f"{LAYER}attention.query_key_value.weight": torch.randn(18, 6),
    f"{LAYER}attention.query_key_value.bias": torch.randn(18),
    f"{LAYER}attention.dense.weight": torch.randint(-128, 128, (6, 6), dtype=torch.int8),
    f"{LAYER}attention.dense.bias": torch.randn(6),
    f"{LAYER}mlp.dense_h_to_4h.weight": torch.randn(24, 6),
    f"{LAYER}mlp.dense_h_to_4h.bias": torch.randn(24),
    f"{LAYER}mlp.dense_4h_to_h.weight": torch.randn(6, 12),
    f"{LAYER}input_layernorm.weight": torch.randn(6),
}
SCALES = {f"{LAYER}attention.dense.weight_scale": torch.randn(6, 3)}


def cut(name: str, whole: Tensor, rank: int, ranks: int) -> Tensor:
    """Return what one rank holds."""
    if name.endswith(("dense.weight", "4h_to_h.weight")):
        return whole.chunk(ranks, 1)[rank]
    if "h_to_4h" in name:
        return torch.cat([half.chunk(ranks)[rank] for half in whole.chunk(2)])
    return whole.chunk(ranks)[rank] if "embed" in name or "query" in name else whole


def write(folder: Path, ranks: int) -> Path:
    (folder / "49300").mkdir()
    (folder / "latest").write_text("49300\n")
    for rank in range(ranks):
        state = {name: cut(name, whole, rank, ranks).clone() for name, whole in WHOLE.items()}
        state |= {name: scale[:, rank].clone() for name, scale in SCALES.items()}
        place = folder / "49300" / f"mp_rank_{rank:02d}_model_states.pt"
        torch.save({"module": state, "iteration": 49300}, place)
    return folder


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_are_put_together(tmp_path: Path, ranks: int) -> None:
    checkpoint = open_checkpoint(write(tmp_path, ranks))
    assert checkpoint.kind == "sat"
    assert checkpoint.metadata["iteration"] == 49300
    for name, whole in (WHOLE | {key: scale[:, :ranks] for key, scale in SCALES.items()}).items():
        entry = checkpoint.entries[name]
        assert torch.equal(entry.read(), whole), name
        assert entry.shape == whole.shape, name


def test_one_rank_is_read_as_it_is(tmp_path: Path) -> None:
    entries = open_checkpoint(write(tmp_path, 1)).entries
    for name, scale in SCALES.items():
        assert torch.equal(entries[name].read(), scale[:, 0])


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, 3)
    shards = sorted((folder / "49300").iterdir())
    state = torch.load(shards[2])
    renamed = {"module": {f"x{name}": tensor for name, tensor in state["module"].items()}}
    torch.save(renamed, shards[2])
    with pytest.raises(CheckpointError, match="other tensors than rank 0"):
        open_checkpoint(folder)
    name = f"{LAYER}attention.query_key_value.weight"
    torch.save({"module": state["module"] | {name: torch.randn(6, 7)}}, shards[2])
    with pytest.raises(CheckpointError, match=r"slices .*\[6, 7\] F32 do not make one tensor"):
        open_checkpoint(folder)
    shards[1].unlink()
    with pytest.raises(CheckpointError, match="are not all there"):
        open_checkpoint(folder)
    (folder / "latest").write_text("../elsewhere")
    with pytest.raises(CheckpointError, match="file name"):
        open_checkpoint(folder)
