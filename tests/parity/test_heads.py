"""Rewards, values and classes: the models whose head is not a language model's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from bestiary.context import Full
from bestiary.load import load, published
from bestiary.run.score import rewards
from tests import tiny
from tests.goldens import decoders

from .test_references import assert_close, reference


@pytest.mark.parametrize("case", decoders(with_key="rewards"), ids=lambda p: p.name)
def test_rewards_are_of_the_last_real_token(case: Path) -> None:
    ref = reference(case)
    tokens, seen = ref.want["input_ids"], ref.seen
    assert seen is not None
    assert_close(rewards(ref.loaded.decoder, tokens, seen), ref.want["rewards"], ref.tolerance, "rewards")
    for row, length in enumerate(seen.sum(1).tolist()):  # each by itself, and padded on the left
        alone = tokens[row : row + 1, :length]
        assert_close(rewards(ref.loaded.decoder, alone), ref.want["rewards"][row : row + 1], 1e-5, "alone")
        left, real = (torch.nn.functional.pad(t, (3, 0)) for t in (alone, seen[row : row + 1, :length]))
        assert_close(
            rewards(ref.loaded.decoder, left, real), rewards(ref.loaded.decoder, alone), 1e-5, "left"
        )


SEQUENCES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "mistral-tied": ("MistralConfig", {"tie_word_embeddings": True, "sliding_window": 5}),
    "gpt2": ("GPT2Config", {key: v for key, v in tiny.GPT2.items() if v is not ...}),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequence_classification(name: str, tmp_path: Path) -> None:
    kind, changes = SEQUENCES[name]
    sizes = {**(tiny.SIZES if name != "gpt2" else {}), **changes, "num_labels": 3, "pad_token_id": 0}
    config = getattr(transformers, kind)(**sizes)
    torch.manual_seed(0)
    theirs = transformers.AutoModelForSequenceClassification.from_config(config).float().eval()
    tiny.randomise(theirs, 0.2).save_pretrained(tmp_path)
    loaded = load(tmp_path)
    tokens = torch.randint(1, 130, (3, 12))
    tokens[1, 7:] = tokens[2, 4:] = 0
    with torch.inference_mode():
        want = theirs(tokens, attention_mask=(tokens != 0).long()).logits
    assert_close(rewards(loaded.decoder, tokens, tokens != 0), want, 1e-4, "scores")
    assert published(loaded).keys() == loaded.checkpoint.entries.keys()


def test_a_policy_keeps_its_values_beside_its_head(tmp_path: Path) -> None:
    theirs, held = _llama(tmp_path)
    _add(tmp_path, "v_head.summary", held)
    loaded, tokens = load(tmp_path), torch.randint(130, (2, 9))
    with torch.inference_mode():
        want = theirs(tokens, output_hidden_states=True)
        hidden = loaded.decoder.hidden(tokens, Full.of(tokens))
        assert_close(loaded.decoder.head(hidden), want.logits, 1e-4, "logits")
        values = loaded.decoder.get_submodule("value")(hidden)
        assert_close(values, held(want.hidden_states[-1]), 1e-4, "values")
    _is_saved_as_it_was(tmp_path)


def test_a_value_head_takes_the_place_of_the_head(tmp_path: Path) -> None:
    theirs, held = _llama(tmp_path)
    _add(tmp_path, "value_head", held, without="lm_head.weight")
    loaded, tokens = load(tmp_path), torch.randint(130, (2, 9))
    with torch.inference_mode():
        want = held(theirs(tokens, output_hidden_states=True).hidden_states[-1])
        assert_close(loaded.decoder(tokens, Full.of(tokens)), want, 1e-4, "values")
    _is_saved_as_it_was(tmp_path)


def _llama(folder: Path) -> tuple[Any, torch.nn.Linear]:
    """Write a tiny Llama, and return transformers' model of it and a head of one number."""
    theirs, held = tiny.make("llama", folder), torch.nn.Linear(tiny.SIZES["hidden_size"], 1)
    return theirs, held


def _add(folder: Path, path: str, held: torch.nn.Linear, *, without: str | None = None) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors |= {f"{path}.{name}": p.detach() for name, p in held.named_parameters()}
    save_file({name: t for name, t in tensors.items() if name != without}, folder / "model.safetensors")


def _is_saved_as_it_was(folder: Path) -> None:
    original, saved = load_file(folder / "model.safetensors"), published(load(folder))
    assert saved.keys() == original.keys()
    assert all(torch.equal(saved[name], tensor) for name, tensor in original.items())
