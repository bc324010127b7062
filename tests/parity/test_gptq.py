"""GPTQ files as their own readers read them: every bit width, order of channels and form of zeros."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from bestiary.quant.gptq import GPTQLinear
from tests.goldens import cases

MODELS = [case for case in cases("format-gptq-*") if (case / "dequantized.safetensors").exists()]


def dequantized(tensors: dict[str, Tensor], path: str, bits: int, group: int, offset: int = 1) -> Tensor:
    """Return the weight of one packed layer of a file; where it holds no g_idx the layer's own counts."""
    own = {leaf: tensors[f"{path}.{leaf}"] for leaf in GPTQLinear.output_axes if f"{path}.{leaf}" in tensors}
    words, columns = own["qweight"].shape
    layer = GPTQLinear(
        words * 32 // bits, columns, bits=bits, group=None if group == -1 else group, offset=offset
    )
    assert layer.load_state_dict(own, strict=False).missing_keys in ([], ["g_idx"])
    return layer.dequantize()


@pytest.mark.parametrize("case", MODELS, ids=lambda p: p.name)
def test_models(case: Path) -> None:
    said = json.loads((case / "config.json").read_text())["quantization_config"]
    packed, want = load_file(case / "model.safetensors"), load_file(case / "dequantized.safetensors")
    paths = [name.removesuffix(".qweight") for name in packed if name.endswith(".qweight")]
    assert paths
    offset = 0 if said["checkpoint_format"] == "gptq_v2" else 1
    for path in paths:
        got = dequantized(packed, path, said["bits"], said["group_size"], offset)
        assert torch.equal(got, want[f"{path}.weight"]), path


@pytest.mark.parametrize("case", cases("format-gptq-v1-zeros"), ids=lambda p: p.name)
def test_a_stored_zero_of_all_ones_is_a_whole_step_more(case: Path) -> None:
    """As the reader of those that disagree which recovers what was packed."""
    packed, want = load_file(case / "model.safetensors"), load_file(case / "expected.safetensors")
    for path, sizes in json.loads((case / "config.json").read_text())["layers"].items():
        got = dequantized(packed, path, sizes["bits"], sizes["group_size"])
        assert torch.equal(got, want[f"{path}.autogptq_cuda"]), path


@pytest.mark.parametrize("case", cases("moss-16b-int?"), ids=lambda p: p.name)
def test_moss(case: Path) -> None:
    config = json.loads((case / "config.json").read_text())
    packed, expected = load_file(case / "model.safetensors"), load_file(case / "expected.safetensors")
    named = {name: weight for name, weight in expected.items() if name.startswith("dequantized.")}
    assert named
    for name, want in named.items():
        path = name.removeprefix("dequantized.").removesuffix(".weight")
        assert torch.equal(dequantized(packed, path, config["wbits"], config["groupsize"]), want), path
