"""Published weights in 8 and 4 bits: what they stand for, either way to round them, shards of ranks."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bestiary.context import Full
from bestiary.errors import CheckpointError
from bestiary.load import Loaded, load, published
from bestiary.quant.rows import HalfRowScaled, RowScaled
from bestiary.swap import swap
from tests.goldens import STORED, cases, hints

from .test_references import assert_close, greedy, hidden_states, reference

LINEARS = r"layers\.\d+\.(attn|mlp)\.(q|k|v|o|gate|up|down)"
PACKED = cases("chatglm*-int[48]", "glm130b-int[48]")
SHARDED = cases("glm130b", "glm130b-int*")


def rows(loaded: Loaded) -> dict[str, Tensor]:
    """Return the float32 weights that integers stand for, by their published names and in their layout."""
    out: dict[str, Tensor] = {}
    for use in loaded.match.uses:
        if loaded.checkpoint.entries[use.published[0]].dtype == "I8":
            modules = [loaded.decoder.get_submodule(name.removesuffix(".weight")) for name in use.ours]
            parts = [module.dequantize() for module in modules if isinstance(module, RowScaled)]
            out.update(use.join(parts, loaded.decoder))
    return out


@pytest.mark.parametrize("case", PACKED, ids=lambda p: p.name)
def test_the_weights_that_integers_stand_for(case: Path) -> None:
    ref = reference(case)
    got = rows(ref.loaded)
    want = {name[8:]: t for name, t in ref.want.items() if name.startswith("dequant.")}
    assert got.keys() == want.keys()
    assert len(got) == 4 * len(ref.loaded.decoder.layers)
    for name, weight in got.items():
        assert torch.equal(weight, want[name]), name


def other(kind: type[RowScaled], module: nn.Module) -> nn.Module:
    assert isinstance(module, RowScaled)
    made = kind.like(module, bits=module.bits)
    made.weight, made.weight_scale = module.weight, module.weight_scale
    return made


@pytest.mark.parametrize("case", PACKED, ids=lambda p: p.name)
def test_the_other_way_to_round(case: Path) -> None:
    """ChatGLM-6B is computed as on a CPU, without rounding to float16; the others as on a GPU, with it."""
    ref = reference(case)
    first = case.name.startswith("chatglm1")
    swap(ref.loaded.decoder, LINEARS, partial(other, HalfRowScaled if first else RowScaled))
    tokens = ref.want["input_ids"]
    key = "half_dequant" if first else "float_dequant"
    assert_close(hidden_states(ref.loaded, tokens)[1], ref.want[f"logits_{key}"], ref.tolerance, "logits")
    if (want := ref.want.get(f"greedy_{key}")) is not None:
        assert greedy(ref.loaded, tokens[0], len(want)) == want.tolist()


@pytest.mark.parametrize("case", SHARDED, ids=lambda p: p.name)
def test_shards_of_ranks(case: Path) -> None:
    """Against the results, and bit for bit against the same weights merged by the authors' program."""
    want, merged = load_file(case / "expected.safetensors"), load_file(case / "model.safetensors")
    loaded = load(case / "sat", config=hints(case))
    assert_close(hidden_states(loaded, want["input_ids"])[1], want["logits"], 2e-4, "logits")
    assert greedy(loaded, want["input_ids"][0], len(want["greedy"])) == want["greedy"].tolist()
    saved = published(loaded)
    if merged.keys() != loaded.checkpoint.entries.keys():  # there merged means dequantised
        saved |= {name: weight.half() for name, weight in rows(loaded).items()}
    for name, weight in merged.items():
        if name not in loaded.match.dropped:
            assert torch.equal(saved[name], weight), name


def test_integers_swapped_in_are_not_saved_as_floats() -> None:
    loaded = reference(STORED / "glm130b").loaded
    swap(loaded.decoder, LINEARS, RowScaled.of)
    with pytest.raises(CheckpointError, match="was replaced since the model was loaded"):
        published(loaded)


@pytest.mark.parametrize("bits", [8, 4])
def test_both_ends_in_integers(bits: int, tmp_path: Path) -> None:
    """chatglm-6b-int4-qe: one table for embedding and head, as its QuantizedEmbedding holds it."""
    config = json.loads((STORED / "chatglm1-6b" / "config.json").read_text())
    floats, packed = load_file(STORED / "chatglm1-6b" / "model.safetensors"), dict[str, Tensor]()
    for name, tensor in floats.items():
        if not name.endswith("weight") or tensor.ndim < 2:
            packed[name] = tensor
            continue
        linear = nn.Linear(tensor.shape[1], tensor.shape[0], bias=False)
        linear.weight = nn.Parameter(tensor)
        made = RowScaled.of(linear, bits=bits)
        packed |= {name: made.weight, f"{name}_scale": made.weight_scale}
        floats[name] = made.dequantize()
    said = {"quantization_bit": bits, "quantization_embeddings": True}
    for folder, tensors, keys in (("plain", floats, {}), ("packed", packed, said)):
        (tmp_path / folder).mkdir()
        save_file({k: t.clone() for k, t in tensors.items()}, tmp_path / folder / "model.safetensors")
        (tmp_path / folder / "config.json").write_text(json.dumps(config | keys))
    plain, loaded = load(tmp_path / "plain"), load(tmp_path / "packed")
    ids = torch.tensor([[9, 8, 201, 204, 7, 6], [5, 201, 204, 3, 2, 1]])
    with torch.inference_mode():
        got, want = (one.model(ids, Full.of(ids, None, one.model.prompt(ids))) for one in (loaded, plain))
    assert_close(got, want, 2e-4, "logits")
    saved = published(loaded)
    assert saved.keys() | loaded.match.dropped == packed.keys()
    assert all(torch.equal(tensor, packed[name]) for name, tensor in saved.items())
    assert loaded.model.get_submodule("embed").weight is loaded.model.get_submodule("head").weight
    half = load(tmp_path / "packed", dtype="bfloat16").model
    with torch.inference_mode():
        assert half(ids, Full.of(ids, None, half.prompt(ids))).dtype == torch.bfloat16
