"""A whole tiny BERT in a folder, with a head and a tokenizer, as somebody publishes one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

from tests import tiny
from tests.unit.text.tokenizers_made import wordpiece_json


def publish(folder: Path, head: str, **keys: Any) -> Path:
    """Write BertFor<head> of random weights with these keys in its config; return the folder."""
    vocab = wordpiece_json()["model"]["vocab"]
    config = transformers.BertConfig(
        vocab_size=len(vocab),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        **keys,
    )
    torch.manual_seed(0)
    tiny.randomise(getattr(transformers, f"BertFor{head}")(config), 0.4).save_pretrained(folder)
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in sorted(vocab, key=vocab.get)))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return folder
