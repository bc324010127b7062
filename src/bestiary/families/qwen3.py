"""Qwen3: Llama with norms on the queries and keys of each head."""

from __future__ import annotations

from functools import partial

from torch import nn

from ..config import Config
from ..models import Decoder
from ..tensors import Rules
from . import llama

TENSORS: Rules = {
    **llama.TENSORS,
    "model.layers.*.self_attn.q_norm": "layers.*.attn.q_norm",
    "model.layers.*.self_attn.k_norm": "layers.*.attn.k_norm",
}


def build(c: Config, *, feedforward: llama.Layer = llama.usual) -> Decoder:
    """Compose the bricks that a Qwen3 config.json describes."""
    norm = partial(nn.RMSNorm, c.count("head_dim"), c.number("rms_norm_eps", 1e-6))

    def attention(make: llama.Make, index: int) -> nn.Module:
        return make(q_norm=norm(), k_norm=norm())

    return llama.build(c, attention=attention, feedforward=feedforward)
