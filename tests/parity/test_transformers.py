"""Every family against transformers, run live on the same tiny checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from bestiary.context import Full
from bestiary.load import load, published, save
from tests import tiny
from tests.goldens import decoders

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


# What transformers 5.23 does not compute of cases whose architecture it has.
OTHERWISE = {
    "longchat-13b-16k-oldconfig": "reads no rope_condense_ratio",
    "mpt-30b": "refuses a clip_qkv that is a whole number, as published",
    "mpt-7b-storywriter": "the same, and reads no alibi_bias_max",
    "ultrarm-13b": "has no reward head of this name",
}


def live() -> list[Path]:
    """Return the reference cases whose architecture transformers has, by their published configs."""
    kinds = {case: json.loads((case / "config.json").read_text()).get("model_type") for case in decoders()}
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return [case for case, kind in kinds.items() if kind in known and case.name not in OTHERWISE]


@pytest.mark.parametrize("case", live(), ids=lambda p: p.name)
def test_equal_on_published_forms(case: Path) -> None:
    """The same files, read by both, on other tokens than the case's own."""
    loaded, kind = load(case), json.loads((case / "config.json").read_text())["model_type"]
    attention = "sdpa" if kind == "falcon" else "eager"  # see tests.tiny.make
    reference = transformers.AutoModelForCausalLM.from_pretrained(
        case, attn_implementation=attention, dtype=torch.float32
    ).eval()
    tokens = torch.randint(3, 150, (2, 24))
    with torch.inference_mode():
        got, want = loaded.model(tokens, Full.of(tokens)), reference(tokens).logits
    assert_close(got, want, 1e-4, "logits")
