"""T5's files of different years: what they say of the head, and of the activation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bestiary.context import Full
from bestiary.errors import ConfigError
from bestiary.load import load, published
from bestiary.models import EncoderDecoder
from tests import tiny


def change(folder: Path, **keys: Any) -> None:
    """Set keys of a config.json; those of ... are left out."""
    said = {**json.loads((folder / "config.json").read_text()), **keys}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in said.items() if v is not ...}))


def logits(folder: Path) -> torch.Tensor:
    model = load(folder).model
    assert isinstance(model, EncoderDecoder)
    answer = torch.arange(3, 12)[None]
    with torch.inference_mode():
        return model(answer, Full.of(answer, None, model.prompt(torch.arange(5, 20)[None])))


def test_transformers_5_calls_a_head_tied_that_is_not(tmp_path: Path) -> None:
    """What it writes of T5 1.1 says that the head is tied, and that nothing is scaled."""
    tiny.make("t5-gated", tmp_path)
    want = logits(tmp_path)
    change(tmp_path, tie_word_embeddings=True, scale_decoder_outputs=False)
    assert torch.equal(logits(tmp_path), want)
    assert published(load(tmp_path)).keys() == load_file(tmp_path / "model.safetensors").keys()
    change(tmp_path, tie_word_embeddings=False, scale_decoder_outputs=...)  # as published
    assert torch.equal(logits(tmp_path), want)


def test_an_old_file_repeats_its_embedding(tmp_path: Path) -> None:
    """The first release's files hold it four times, and what is not computed with."""
    tiny.make("t5", tmp_path)
    want, tensors = logits(tmp_path), load_file(tmp_path / "model.safetensors")
    change(tmp_path, tie_word_embeddings=..., scale_decoder_outputs=..., feed_forward_proj=...)
    for name in ("encoder.embed_tokens", "decoder.embed_tokens", "lm_head"):
        tensors[f"{name}.weight"] = tensors["shared.weight"].clone()
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    save_file({**tensors, unused: torch.ones(8, 6)}, tmp_path / "model.safetensors", {"format": "pt"})
    assert torch.equal(logits(tmp_path), want)


@pytest.mark.parametrize(("key", "value"), [("is_gated_act", False), ("dense_act_fn", "relu")])
def test_an_activation_is_said_in_one_way(key: str, value: object, tmp_path: Path) -> None:
    tiny.make("t5-gated", tmp_path)
    change(tmp_path, **{key: value})
    with pytest.raises(ConfigError, match=key):
        load(tmp_path)
