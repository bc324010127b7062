"""Folders of ranks, cut here as the programs cut that trained GLM-130B, CPM-2 and PLUG."""

from __future__ import annotations

import json
import re
import shutil
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from bestiary.errors import CheckpointError
from bestiary.files import open_checkpoint
from bestiary.load import load, published, save
from tests.goldens import STORED, cases

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


# GLM-130B's.


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


# CPM-2's and PLUG's, from the whole models that are stored.

MOE, PLUG = STORED / "cpm2-moe", STORED / "plug-27b"
PUBLISHED = [
    *((case, "latest_checkpointed_iteration.txt") for case in cases("cpm2-*")),
    *((case, "model") for case in cases("plug-*")),
]
# The end of a name -> the dimension that it is cut along, and how many tensors are fused there.
CUTS = {
    "word_embeds.weight": (0, 1),
    "lm_head.weight": (0, 1),
    "self_attn.project.weight": (0, 3),
    "project_q.weight": (0, 1),
    "project_kv.weight": (0, 2),
    "relative_attention_bias.weight": (1, 1),
    "wi_0.weight": (0, 1),
    "wi_1.weight": (0, 1),
    "wo.weight": (1, 1),
    "self_attn.dense.weight": (1, 1),
    "cross_attn.dense.weight": (1, 1),
    "word_embeddings.weight": (0, 1),
    "predictions.bias": (0, 1),
    "decoder_weight": (0, 1),
    "query_key_value.weight": (0, 3),
    "query_key_value.bias": (0, 3),
    ".query.weight": (0, 1),
    ".query.bias": (0, 1),
    ".key_value.weight": (0, 2),
    ".key_value.bias": (0, 2),
    "intermediate.dense.weight": (0, 1),
    "intermediate.dense.bias": (0, 1),
    ".intermediate.weight": (0, 1),
    ".intermediate.bias": (0, 1),
    "attention.dense.weight": (1, 1),
    ".output.dense.weight": (1, 1),
    ".output.weight": (1, 1),
}
AGAIN = {
    "encoder.word_embeds.weight": "word_embeds.weight",
    "decoder.word_embeds.weight": "word_embeds.weight",
    "cls.predictions.decoder_weight": "bert.embeddings.word_embeddings.weight",
}
EXPERT = re.compile(r"expert_network\.(\d+)\.")


def share(name: str, whole: Tensor, rank: int, ranks: int) -> Tensor:
    """Return what one model-parallel rank holds."""
    axis, fused = next((how for end, how in CUTS.items() if name.endswith(end)), (0, 0))
    parts = [part.chunk(ranks, axis)[rank] for part in whole.chunk(fused, axis)] if fused else [whole]
    return torch.cat(parts, axis).clone()


def spread(case: Path, folder: Path, ranks: int, *, replicas: int = 0) -> Path:
    """Write a stored model as its ranks would: replicas data-parallel ones, each with its expert."""
    whole = load_file(case / "model.safetensors")
    whole |= {name: whole[own] for name, own in AGAIN.items() if own in whole}
    place = folder / ("300000" if replicas else "model")
    place.mkdir()
    shutil.copy(case / "config.json", folder)
    for replica, rank in product(range(max(replicas, 1)), range(ranks)):
        state = {
            EXPERT.sub("expert_network.", name): share(name, tensor, rank, ranks)
            for name, tensor in whole.items()
            if (hit := EXPERT.search(name)) is None or int(hit[1]) == replica
        }
        if replicas:
            (folder / "latest_checkpointed_iteration.txt").write_text("300000\n")
            file = f"mp_rank_{replica:02d}_{rank:02d}_model_states.pt"
            torch.save({"iteration": 300000, "model": state}, place / file)
        else:
            file = f"mp_rank_{rank:02d}_model_states.pt"
            torch.save({"module": state, "mp_world_size": ranks}, place / file)
    return folder


def assert_same(folder: Path, case: Path) -> None:
    """Fail unless a folder of ranks is, bit for bit, the model that a case has whole."""
    merged, whole = load(folder), load(case)
    assert merged.checkpoint.kind == "megatron"
    assert merged.config == whole.config
    state = merged.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in whole.model.state_dict().items())
    mine, theirs = published(merged), published(whole)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], tensor) for name, tensor in theirs.items())
    assert merged.checkpoint.nbytes == whole.checkpoint.nbytes


@pytest.mark.parametrize(
    ("case", "ranks", "replicas"), [(MOE, 1, 4), (MOE, 2, 4), (PLUG, 1, 0), (PLUG, 8, 0)]
)
def test_ranks_make_the_whole_model(tmp_path: Path, case: Path, ranks: int, replicas: int) -> None:
    folder = spread(case, tmp_path, ranks, replicas=replicas)
    assert_same(folder, case)
    assert_same(folder / ("300000" if replicas else "model"), case)  # config.json lies a folder up


@pytest.mark.parametrize(("case", "place"), PUBLISHED, ids=lambda v: v if isinstance(v, str) else v.name)
def test_published_ranks_make_the_whole_model(case: Path, place: str) -> None:
    assert_same(case / place, case)


def test_what_was_ranks_is_saved_whole(tmp_path: Path) -> None:
    (tmp_path / "ranks").mkdir()
    merged = load(spread(MOE, tmp_path / "ranks", 2, replicas=4))
    save(merged, tmp_path / "whole")
    saved, original = load_file(tmp_path / "whole/model.safetensors"), load_file(MOE / "model.safetensors")
    assert saved.keys() == original.keys()
    assert all(torch.equal(saved[name], tensor) for name, tensor in original.items())
    assert load(tmp_path / "whole").config == merged.config


def test_sizes_that_no_config_says_are_those_of_the_tensors(tmp_path: Path) -> None:
    folder = spread(MOE, tmp_path, 2, replicas=4)
    config = load(MOE).config
    text = (folder / "config.json").read_text()
    for key in ("vocab_size", "num_experts"):
        text = re.sub(rf',?\s*"{key}": \d+', "", text)
    (folder / "config.json").write_text(text)
    assert load(folder).config == config


def changed(file: Path, **state: Tensor) -> None:
    """Replace tensors of one rank."""
    held = torch.load(file)
    torch.save({**held, "module": held["module"] | state}, file)


NORM, TWICE = "bert.encoder.LayerNorm.weight", "cls.predictions.decoder_weight"


@pytest.mark.parametrize("name", [NORM, TWICE])
def test_copies_that_differ_are_named(tmp_path: Path, name: str) -> None:
    folder = spread(PLUG, tmp_path, 4)
    file = folder / "model/mp_rank_02_model_states.pt"
    changed(file, **{name: torch.load(file)["module"][name] + 1})
    with pytest.raises(CheckpointError, match="should be copies, and their numbers differ") as caught:
        load(folder)
    assert re.search(r"bert\.(encoder\.LayerNorm|embeddings\.word_embeddings)\.weight", str(caught.value))


def test_copies_may_hold_nan(tmp_path: Path) -> None:
    folder = spread(PLUG, tmp_path, 2)
    for rank in range(2):
        changed(folder / f"model/mp_rank_{rank:02d}_model_states.pt", **{NORM: torch.full((48,), torch.nan)})
    with pytest.warns(UserWarning, match=NORM):
        load(folder)


def test_slices_that_do_not_fit_are_named(tmp_path: Path) -> None:
    folder = spread(PLUG, tmp_path, 2)
    name = "decoder.decoder.layer.0.attention.query_key_value.weight"
    changed(folder / "model/mp_rank_01_model_states.pt", **{name: torch.zeros(70, 48)})
    with pytest.raises(CheckpointError, match=r"\[70, 48\] F32 do not make one tensor: they do not hold 3"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("00", r"mp_rank_00_model_states\.pt is missing"),
        ("01", r"mp_rank_01_model_states\.pt is missing"),
        ("03", "is one of 4 ranks, and 3 are there"),
    ],
)
def test_a_rank_that_is_missing_is_named(tmp_path: Path, gone: str, said: str) -> None:
    folder = spread(PLUG, tmp_path, 4)
    (folder / f"model/mp_rank_{gone}_model_states.pt").unlink()
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        (["02_01"], r"mp_rank_02_01_model_states\.pt is missing"),
        (["02_01", "01_00"], r"mp_rank_01_00_model_states\.pt is missing, and 1 more"),
        (["03_00", "03_01"], r"expert_network\.3\."),  # as many experts as there are centroids
        ([f"0{n}_01" for n in range(4)], "has shape"),
    ],
)
def test_a_replica_that_is_missing_is_named(tmp_path: Path, gone: list[str], said: str) -> None:
    folder = spread(MOE, tmp_path, 2, replicas=4)
    for numbers in gone:
        (folder / f"300000/mp_rank_{numbers}_model_states.pt").unlink()
    with pytest.raises(CheckpointError, match=said):
        load(folder)


def test_ranks_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    folder = spread(MOE, tmp_path, 1, replicas=4)
    tracker, last = folder / "latest_checkpointed_iteration.txt", "mp_rank_03_00_model_states.pt"
    tracker.write_text("100000")
    with pytest.raises(CheckpointError, match="names the folder '100000', which is not there"):
        open_checkpoint(folder)
    (folder / "100000").mkdir()
    with pytest.raises(CheckpointError, match=r"not all there: mp_rank_00_model_states\.pt is missing"):
        open_checkpoint(folder)
    tracker.write_text("300000")
    torch.save({**torch.load(folder / "300000" / last), "iteration": 200000}, folder / "300000" / last)
    with pytest.raises(CheckpointError, match=rf"{last}: is of iteration 200000, and rank 0 of 300000"):
        open_checkpoint(folder)
    (folder / "300000" / last).rename(folder / "300000/mp_rank_03_model_states.pt")
    with pytest.raises(CheckpointError, match="in several ways"):
        open_checkpoint(folder)


def test_what_an_unknown_program_cut_is_refused(tmp_path: Path) -> None:
    for rank in range(2):
        torch.save(
            {"module": {"layers.0.weight": torch.ones(2)}}, tmp_path / f"mp_rank_0{rank}_model_states.pt"
        )
    with pytest.raises(CheckpointError, match="a program that is not known here"):
        open_checkpoint(tmp_path)
    (tmp_path / "mp_rank_01_model_states.pt").unlink()  # one rank cut nothing
    assert open_checkpoint(tmp_path).kind == "bin"


# Meta's.

BLOCK = "layers.0."
LLAMA = {
    "tok_embeddings.weight": torch.randn(12, 16),
    "norm.weight": torch.randn(16),
    "output.weight": torch.randn(12, 16),
    "rope.freqs": torch.randn(2),
    f"{BLOCK}attention_norm.weight": torch.randn(16),
    f"{BLOCK}ffn_norm.weight": torch.randn(16),
    **{f"{BLOCK}attention.w{name}.weight": torch.randn(16, 16) for name in "qo"},
    **{f"{BLOCK}attention.w{name}.weight": torch.randn(8, 16) for name in "kv"},
    f"{BLOCK}feed_forward.w1.weight": torch.randn(24, 16),
    f"{BLOCK}feed_forward.w2.weight": torch.randn(16, 24),
    f"{BLOCK}feed_forward.w3.weight": torch.randn(24, 16),
}
COLUMNS = ("tok_embeddings.weight", "wo.weight", "w2.weight")


def write_llama(folder: Path, ranks: int) -> Path:
    folder.mkdir()
    for rank in range(ranks):
        state = {}
        for name, whole in LLAMA.items():
            axis = int(name.endswith(COLUMNS))
            shared = whole.ndim == 1
            state[name] = whole if shared else whole.chunk(ranks, axis)[rank].clone()
        torch.save(state, folder / f"consolidated.{rank:02d}.pth")
    params = {"dim": 16, "n_layers": 1, "n_heads": 4, "n_kv_heads": 2, "norm_eps": 1e-5, "vocab_size": -1}
    (folder / "params.json").write_text(json.dumps(params | {"hidden_dim": 24}))
    return folder


@pytest.mark.parametrize("ranks", [2, 4])
def test_consolidated_parts_are_one_checkpoint(tmp_path: Path, ranks: int) -> None:
    folder = write_llama(tmp_path / "llama", ranks)
    for place in (folder, folder / "consolidated.00.pth", folder / "consolidated.01.pth"):
        entries = open_checkpoint(place).entries
        assert entries.keys() == LLAMA.keys()
        for name, whole in LLAMA.items():
            assert torch.equal(entries[name].read(), whole), name


def test_consolidated_parts_are_a_llama(tmp_path: Path) -> None:
    whole, parts = (load(write_llama(tmp_path / str(ranks), ranks)) for ranks in (1, 2))
    want = whole.model.state_dict()
    assert all(torch.equal(tensor, want[name]) for name, tensor in parts.model.state_dict().items())
    save(parts, tmp_path / "saved")
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert saved.keys() == LLAMA.keys() - {"rope.freqs"}
    assert all(torch.equal(tensor, LLAMA[name]) for name, tensor in saved.items())


def test_a_consolidated_part_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "llama", 4)
    (folder / "consolidated.02.pth").unlink()
    with pytest.raises(CheckpointError, match=r"consolidated\.02\.pth is missing"):
        load(folder)
    (folder / "consolidated.03.pth").unlink()
    with pytest.raises(CheckpointError, match="has shape"):
        load(folder)
    (folder / "consolidated.00.pth").unlink()
    with pytest.raises(CheckpointError, match=r"consolidated\.00\.pth is missing"):
        load(folder)
