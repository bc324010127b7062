"""Published weights in 8 and 4 bits: what they stand for, either way to round them, shards of ranks."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

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
