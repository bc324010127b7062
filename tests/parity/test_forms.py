"""Other published forms of a model: state dicts of its authors' own classes, and JAX arrays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from bestiary.context import Full
from bestiary.describe import describe, empty
from bestiary.families.grok import RELEASED
from bestiary.files import open_checkpoint
from bestiary.load import load, published
from tests.goldens import cases, decoders
from tests.unit.files import craft

from .test_references import assert_close, computed, hidden_states, reference

FORMS = [
    *((case, "gemma_pytorch.ckpt") for case in cases("gemma-*")),
    *((case, "palm.pt") for case in cases("palm-1b")),
    *((case, "ckpt-0") for case in cases("grok-1")),
]


@pytest.mark.parametrize(("case", "form"), FORMS, ids=lambda v: v if isinstance(v, str) else v.name)
def test_the_same_model(case: Path, form: str, tmp_path: Path) -> None:
    """Alone in a folder with its config.json, as it is downloaded: the same numbers, and saved as it was."""
    shutil.copy(case / "config.json", tmp_path)
    copy = shutil.copytree if (case / form).is_dir() else shutil.copy
    copy(case / form, tmp_path / form)
    ref, loaded = reference(case), load(tmp_path)
    states, logits = hidden_states(loaded, ref.want["input_ids"])
    assert_close(logits, ref.want["logits"], ref.tolerance, "logits")
    for i, state in enumerate(states):
        assert_close(state, ref.want[f"hidden_states.{i}"], ref.tolerance, f"hidden state {i}")
    saved, entries = published(loaded), loaded.checkpoint.entries
    assert saved.keys() | loaded.match.dropped == entries.keys()
    assert all(computed(name, entries[name].dtype) for name in loaded.match.dropped)
    assert all(torch.equal(tensor, entries[name].read()) for name, tensor in saved.items())


@pytest.mark.parametrize("case", decoders(with_key="left_padded.logits"), ids=lambda p: p.name)
def test_padding_takes_part_in_positions(case: Path) -> None:
    """Grok-1 counts positions from its padding, token 0, which nobody sees."""
    ref = reference(case)
    ids = ref.want["left_padded.input_ids"]
    seen = ids != 0
    with torch.inference_mode():
        got = ref.loaded.model(ids, Full(torch.arange(ids.shape[1])[None], seen))
    assert_close(got[seen], ref.want["left_padded.logits"][seen], ref.tolerance, "logits")


# Eleven layers: by name the eleventh comes before the third.
GROK = {
    "vocab_size": 30, "hidden_size": 16, "intermediate_size": 12, "num_hidden_layers": 11,
    "num_attention_heads": 4, "num_key_value_heads": 2, "num_experts": 3, "num_experts_per_tok": 2,
    "attn_output_multiplier": 0.5, "embedding_multiplier_scale": 4.0, "output_multiplier_scale": 0.6,
    "max_attn_value": 30.0,
}  # fmt: skip


def test_arrays_are_numbered_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "port").mkdir()
    (tmp_path / "ckpt-0").mkdir()
    for folder in (tmp_path / "port", tmp_path):
        (folder / "config.json").write_text(json.dumps(GROK))
    port, arrays = _grok()
    save_file(port, tmp_path / "port" / "model.safetensors")
    for number, (_, value) in enumerate(sorted(arrays.items())):
        (tmp_path / "ckpt-0" / f"tensor{number:05d}_000").write_bytes(craft.pickled(value, 4))
    want, got = (load(folder).model.state_dict() for folder in (tmp_path / "port", tmp_path))
    assert got.keys() == want.keys()
    assert all(torch.equal(got[name], want[name]) for name in want)


# Of one layer, by the name in either form: the sizes in and out, and how many groups of scales.
ATTENTION = {
    ("q", "query"): (16, 16, 1),
    ("k", "key"): (16, 8, 1),
    ("v", "value"): (16, 8, 1),
    ("o", "linear"): (16, 16, 2),
}
EXPERTS = {"linear": (16, 12, 1), "linear_v": (16, 12, 1), "linear_1": (12, 16, 2)}
NORMS = {"pre_attn": "", "post_attn": "_1", "pre_moe": "_2", "post_moe": "_3"}


def _grok() -> tuple[dict[str, Tensor], dict[str, bytes]]:
    """Make a Grok-1: the tensors of the PyTorch port, and pickles by the names that JAX sorts."""
    torch.manual_seed(0)
    port = {"model.embed_tokens.weight": torch.randn(30, 16), "model.norm.scale": torch.randn(16)}
    arrays = {"language_model/in_out_embed/embeddings": _array("f4", port["model.embed_tokens.weight"])}
    arrays["language_model/rms_norm/scale"] = _array("f4", port["model.norm.scale"])
    for layer in range(11):
        ours, theirs = f"model.layers.{layer}", f"transformer/decoder_layer_{layer}"
        for (name, key), (*sizes, groups) in ATTENTION.items():
            wide, arrays[f"{theirs}/multi_head_attention/{key}/w"] = _quantised(*sizes, groups=groups)
            port[f"{ours}.attn.{name}_proj.weight"] = wide
        for name, (*sizes, groups) in EXPERTS.items():
            wide, arrays[f"{theirs}/moe/{name}/w"] = _quantised(3, *sizes, groups=groups)
            port |= {f"{ours}.moe_block.experts.{i}.{name}.weight": wide[i] for i in range(3)}
        for name, key in NORMS.items():
            port[f"{ours}.{name}_norm.scale"] = torch.randn(16)
            arrays[f"{theirs}/rms_norm{key}/scale"] = _array("f4", port[f"{ours}.{name}_norm.scale"])
        port[f"{ours}.moe_block.gate.weight"] = torch.randn(3, 16)
        arrays[f"{theirs}/router/w"] = _array("f4", port[f"{ours}.moe_block.gate.weight"].T.contiguous())
    return {name: tensor.contiguous() for name, tensor in port.items()}, arrays


def _quantised(*shape: int, groups: int) -> tuple[Tensor, bytes]:
    """Return a float32 matrix (..., out, in), and the pickle of the integers (..., in, out) that make it."""
    weight = torch.randint(-127, 128, shape, dtype=torch.int8)
    scales = torch.randn(*shape[:-2], groups, shape[-1]).bfloat16()
    wide = weight * scales.float().repeat_interleave(shape[-2] // groups, -2)
    pickle = craft.quantised(_array("i1", weight), _array("bfloat16", scales.view(torch.int16)))
    return wide.mT, pickle


def _array(code: str, values: Tensor) -> bytes:
    return craft.array(code, values.shape, values.numpy().tobytes())


def test_a_download_without_a_config_is_grok_1(tmp_path: Path) -> None:
    """The released sizes: as many parameters as xAI counts, and a file for each of 770 tensors."""
    (tmp_path / "tensor00000_000").write_bytes(craft.pickled(craft.array("f4", [1], bytes(4)), 4))
    config, rules, build = describe(open_checkpoint(tmp_path))
    assert config == RELEASED
    assert sum(isinstance(name, str) and name.startswith(":tensor") for name in rules) == 770
    assert sum(p.numel() for p in empty(config, build).parameters()) == 315_684_820_992
