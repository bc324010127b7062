"""Qwen1.5, Qwen2, Qwen2.5: Llama with biases on queries, keys and values, and windows in the upper layers."""

from __future__ import annotations

from torch import nn

from ..config import Config
from ..models import Decoder
from . import llama

TENSORS = llama.TENSORS


def build(c: Config, *, feedforward: llama.Layer = llama.usual) -> Decoder:
    """Compose the bricks that a Qwen2 config.json describes."""
    bias = c.flag("qkv_bias", True)
    c.must("use_mrope", False)

    def attention(make: llama.Make, index: int) -> nn.Module:
        return make(bias=bias, out_bias=False)

    return llama.build(c, attention=attention, feedforward=feedforward)
