"""InternLM2: Llama, whose queries, keys and values are one tensor, group by group."""

from __future__ import annotations

from torch import nn

from ..config import Config
from ..models import Decoder
from ..tensors import ByHead, Rules
from . import llama

TENSORS: Rules = {
    "model.tok_embeddings": "embed",
    "model.layers.*.attention_norm": "layers.*.attn_norm",
    "model.layers.*.attention.wqkv": ByHead("layers.*.attn"),
    "model.layers.*.attention.wo": "layers.*.attn.o",
    "model.layers.*.ffn_norm": "layers.*.mlp_norm",
    "model.layers.*.feed_forward.w1": "layers.*.mlp.gate",
    "model.layers.*.feed_forward.w2": "layers.*.mlp.down",
    "model.layers.*.feed_forward.w3": "layers.*.mlp.up",
    "model.norm": "norm",
    "output": "head",
}


def build(c: Config) -> Decoder:
    """Compose the bricks that an InternLM2 config.json describes."""
    bias = c.flag("bias", False)

    def attention(make: llama.Make, index: int) -> nn.Module:
        return make(bias=bias, out_bias=bias)

    return llama.build(c, attention=attention)
