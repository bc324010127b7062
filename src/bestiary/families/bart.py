"""BART and PLBart, which norm last, and mBART, which norms first. Positions are learned, and normed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..bricks import Learned
from ..config import Config
from ..models import Decoder, Encoder, EncoderDecoder
from ..tensors import InRows, Rules
from .heads import Heads
from .translation import Layers, names, scaled, sizes


def TENSORS(c: Config, learned: bool = True) -> Rules:  # noqa: N802  # a table in most families
    """Name the tensors. learned: whether positions are."""
    scale = c.flag("scale_embedding", False)
    shared: Rules = {"[model.]shared": "encoder.embed" + ".0" * scale} if _shared(c) else {}
    return {
        **shared,
        **names(scaled=scale, learned=learned),
        "lm_head:weight": "decoder.head:weight",
        ":final_logits_bias": InRows("decoder.head:bias", 1),
    }


def build(c: Config) -> EncoderDecoder:
    """Compose the bricks that a BART or mBART config.json describes."""
    width, rows = c.count("d_model"), c.count("max_position_embeddings", 1024)
    for key, computed in (("normalize_embedding", True), ("static_position_embeddings", False)):
        c.must(key, computed)
    c.must("extra_pos_embeddings", 2)
    before = c.text("model_type") == "mbart"
    return compose(c, before, lambda: Learned(rows, width, offset=2, norm=nn.LayerNorm(width)))


def compose(c: Config, before: bool, positions: Callable[[], nn.Module]) -> EncoderDecoder:
    """Compose the bricks. before: norms stand before what they norm. positions: makes those of a stack."""
    width, source = c.count("d_model"), c.count("vocab_size")
    c.must("is_decoder", False)
    for key in ("normalize_before", "add_final_layer_norm"):
        c.must(key, before)
    c.get("num_hidden_layers", None)  # of the encoder, again
    layers = Layers(c.activation("activation_function", "gelu"), nn.LayerNorm, before)
    scale = c.flag("scale_embedding", False)
    words = answers = nn.Embedding(source, width)
    target = c.count("decoder_vocab_size", source)
    if _shared(c):
        c.must("decoder_vocab_size", source)
    else:
        answers = nn.Embedding(target, width)
    head = nn.Linear(width, target, bias=False)
    if c.flag("tie_word_embeddings", True):
        head.weight = answers.weight
    start = c.count("decoder_start_token_id", c.get("eos_token_id", 2), least=0, most=target - 1)
    encoder = layers.encoder(*sizes(c, "encoder", "ffn_dim", width))
    decoder = layers.decoder(*sizes(c, "decoder", "ffn_dim", width), width)
    return EncoderDecoder(
        Encoder(scaled(words, scale), encoder, layers.last(width), positions=positions()),
        Decoder(scaled(answers, scale), decoder, layers.last(width), head, positions=positions()),
        (start,),
    )


def _shared(c: Config) -> bool:
    return c.flag("share_encoder_decoder_embeddings", True)


def _biased(c: Config, model: Any, bias: bool) -> None:
    model.head.bias = nn.Parameter(torch.zeros(model.head.out_features))


# Files of the model without its head have no bias; those of the whole one have zeros.
HEADS = Heads({"final_logits_bias": _biased}, {})
