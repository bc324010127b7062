"""A whole tiny encoder-decoder in a folder, as somebody publishes one: weights, a tokenizer with an end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers, processors

from tests import tiny

SPECIAL = ["<pad>", "</s>", "<unk>"]
CONTEXT = 48


def publish(folder: Path) -> None:
    """Write a byte-level tokenizer that puts </s> behind a text, and a random T5 with padding rows."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*SPECIAL, *letters])}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    sizes: dict[str, Any] = {"vocab_size": 272, "d_model": 32, "d_kv": 8, "d_ff": 48}
    sizes |= {"num_layers": 2, "num_heads": 4, "n_positions": CONTEXT}
    sizes |= {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    config = transformers.T5Config(**sizes)
    torch.manual_seed(0)
    tiny.randomise(transformers.T5ForConditionalGeneration(config), 0.7).save_pretrained(folder)
