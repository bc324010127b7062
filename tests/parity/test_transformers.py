"""Every family against transformers, run live on the same tiny checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bestiary.load import load, published, save
from tests import tiny

from .test_references import assert_close, greedy, hidden_states


@pytest.mark.parametrize("name", tiny.MODELS)
def test_equal(name: str, tmp_path: Path) -> None:
    reference = tiny.make(name, tmp_path)
    loaded = load(tmp_path)
    tokens = torch.randint(tiny.SIZES["vocab_size"], (3, 40))
    states, logits = hidden_states(loaded, tokens)
    with torch.inference_mode():
        want = reference(tokens, output_hidden_states=True)
    assert want.logits.std() > 0.5, "too small to tell anything"
    assert_close(logits, want.logits, 1e-4, "logits")
    for i, state in enumerate(states[:-1]):  # its last one is after the final norm
        assert_close(state, want.hidden_states[i], 1e-4, f"hidden state {i}")
    with torch.inference_mode():
        ids = reference.generate(tokens[:1, :10], max_new_tokens=16, do_sample=False, eos_token_id=None)
    assert greedy(loaded, tokens[0, :10], 16) == ids[0, 10:].tolist()


@pytest.mark.parametrize("name", tiny.MODELS)
def test_saved_and_read_again(name: str, tmp_path: Path) -> None:
    reference = tiny.make(name, tmp_path / "a")
    loaded = load(tmp_path / "a")
    save(loaded, tmp_path / "b")
    tokens = torch.randint(tiny.SIZES["vocab_size"], (2, 9))
    with torch.inference_mode():
        want = reference(tokens).logits
        kind = reference.config._attn_implementation
        theirs = type(reference).from_pretrained(tmp_path / "b", attn_implementation=kind)(tokens).logits
    assert torch.equal(theirs, want)
    assert published(load(tmp_path / "b")).keys() == loaded.checkpoint.entries.keys()
