"""CPM-2: prompts that were learned in place of words, and a config.json that its own code does not heed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bestiary.bricks import SoftPrompted
from bestiary.context import Full
from bestiary.describe import empty
from bestiary.errors import ConfigError
from bestiary.load import load, published
from bestiary.models import EncoderDecoder
from tests.goldens import STORED

CASE, PROMPTS = STORED / "cpm2-moe", 6


def prompted(folder: Path) -> tuple[EncoderDecoder, torch.Tensor]:
    """Return the stored model with learned prompts beside its weights, and those."""
    tensors = load_file(CASE / "model.safetensors")
    learned = torch.randn(PROMPTS, tensors["word_embeds.weight"].shape[1])
    save_file({**tensors, "encoder.prompt_embeds.weight": learned}, folder / "model.safetensors")
    shutil.copy(CASE / "config.json", folder)
    loaded = load(folder)
    assert loaded.config["prompt_length"] == PROMPTS
    assert torch.equal(published(loaded)["encoder.prompt_embeds.weight"], learned)
    assert isinstance(loaded.model, EncoderDecoder)
    return loaded.model, learned


def test_negative_tokens_are_learned_prompts(tmp_path: Path) -> None:
    model, learned = prompted(tmp_path)
    words = load_file(CASE / "model.safetensors")["word_embeds.weight"]
    got = model.encoder.embed(torch.tensor([[-1, -PROMPTS, 0, 7]]))
    assert torch.equal(got[0], torch.stack((learned[0], learned[-1], words[0], words[7])))
    assert isinstance(model.encoder.embed, SoftPrompted)
    assert model.decoder.embed is model.encoder.embed.words


@torch.inference_mode()
def test_words_are_what_they_are_without_prompts(tmp_path: Path) -> None:
    model, _ = prompted(tmp_path)
    want = load_file(CASE / "expected.safetensors")
    answer = want["decoder_input_ids"]
    logits = model(answer, Full.of(answer, None, model.prompt(want["input_ids"])))
    torch.testing.assert_close(logits, want["logits"], rtol=0, atol=1e-4)


def test_what_its_code_does_not_heed_changes_nothing() -> None:
    config = json.loads((CASE / "config.json").read_text())
    shapes = {name: tensor.shape for name, tensor in empty(config).state_dict().items()}
    for change in ({"num_decoder_layers": 7}, {"feed_forward_proj": "gated-silu"}):
        changed = empty(config | change).state_dict()
        assert {name: tensor.shape for name, tensor in changed.items()} == shapes
    with pytest.raises(ConfigError, match="do_dim_trick = True is not computed here"):
        empty(config | {"do_dim_trick": True})
