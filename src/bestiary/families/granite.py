"""Granite 3: Llama with constants on embeddings, scores, residuals and logits."""

from __future__ import annotations

from functools import partial

from torch import nn

from ..bricks import Scale, ScaledPreNorm
from ..config import Config
from ..context import Score
from ..models import Decoder
from ..tensors import Rules
from . import llama

TENSORS: Rules = {**llama.TENSORS, "model.embed_tokens": "embed.0", "lm_head": "head.0"}


def build(c: Config) -> Decoder:
    """Compose the bricks that a Granite config.json describes."""
    score = Score(scale=c.number("attention_multiplier", 1.0))
    block = partial(ScaledPreNorm, scale=c.number("residual_multiplier", 1.0))
    c.must("sliding_window", None)

    def attention(make: llama.Make, index: int) -> nn.Module:
        return make(score=score)

    model = llama.build(c, attention=attention, block=block)
    model.embed = nn.Sequential(model.embed, Scale(c.number("embedding_multiplier", 1.0)))
    model.head = nn.Sequential(model.head, Scale(1 / c.number("logits_scaling", 1.0)))
    return model
