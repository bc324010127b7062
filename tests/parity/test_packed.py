"""Repositories packed by the programs of GPTQ, AWQ and bitsandbytes: the same weights, the same logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bestiary.load import load, published
from bestiary.quant.striped import Striped
from tests.goldens import cases, meta

from .test_references import assert_close, greedy, hidden_states

PACKED = [
    case
    for case in cases("format-gptq-*", "format-awq-*", "format-bnb-*")
    if (case / "dequantized.safetensors").exists()
]


@pytest.mark.parametrize("case", PACKED, ids=lambda p: p.name)
def test_packed_by_its_own_program(case: Path) -> None:
    """Weights bit for bit, while they stay packed; logits; what is saved is what was published."""
    want, loaded = load_file(case / "expected.safetensors"), load(case)
    floats = load_file(case / "dequantized.safetensors")
    layers = {name: part for name, part in loaded.model.named_modules() if isinstance(part, Striped)}
    assert len(layers) == 7 * len(loaded.decoder.layers)
    uses = {ours: use.published[0] for use in loaded.match.uses for ours in use.ours}
    for name, layer in layers.items():
        theirs = uses[f"{name}.{'qweight' if hasattr(layer, 'qweight') else 'weight'}"]
        assert torch.equal(layer.dequantize(), floats[f"{theirs.rpartition('.')[0]}.weight"]), name
    states, logits = hidden_states(loaded, want["input_ids"])
    tolerance = meta(case)["tolerance"]
    assert_close(logits, want["logits"], tolerance, "logits")
    for i, state in enumerate(states):
        assert_close(state, want[f"hidden_states.{i}"], tolerance, f"hidden state {i}")
    assert greedy(loaded, want["input_ids"][0], len(want["greedy"])) == want["greedy"].tolist()
    saved, entries = published(loaded), loaded.checkpoint.entries
    assert saved.keys() == entries.keys()
    assert all(torch.equal(tensor, entries[name].read()) for name, tensor in saved.items())
