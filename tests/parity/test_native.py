"""Meta's and Mistral's own files, which lie beside the others: the same numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from bestiary.load import load, published
from tests.goldens import cases

from .test_references import assert_close, greedy, hidden_states

WHOLE = [
    file
    for case in cases("llama-7b", "mistral-7b", "mixtral-8x7b")
    for file in (case / "consolidated.00.pth", case / "consolidated.safetensors")
    if file.exists()
]


SPLIT = [case / "consolidated.01.pth" for case in cases("llama-13b", "llama2-70b")]


@pytest.mark.parametrize("file", [*WHOLE, *SPLIT], ids=lambda p: p.parent.name)
def test_the_authors_own_form(file: Path) -> None:
    want, loaded = load_file(file.parent / "expected.safetensors"), load(file)
    states, logits = hidden_states(loaded, want["input_ids"])
    assert_close(logits, want["logits"], 1e-4, "logits")
    for i, state in enumerate(states):
        assert_close(state, want[f"hidden_states.{i}"], 1e-4, f"hidden state {i}")
    assert greedy(loaded, want["input_ids"][0], len(want["greedy"])) == want["greedy"].tolist()
    assert published(loaded).keys() | loaded.match.dropped == loaded.checkpoint.entries.keys()
