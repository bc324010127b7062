"""OLMo 2: Llama with norms behind its layers instead of before, and over all queries and all keys."""

from __future__ import annotations

from torch import nn

from ..bricks import InnerNorm, WholeNorm
from ..config import Config
from ..models import Decoder
from ..tensors import Rules
from . import llama

TENSORS: Rules = {
    "model.layers.*.post_attention_layernorm": "layers.*.attn_norm",
    "model.layers.*.post_feedforward_layernorm": "layers.*.mlp_norm",
    "model.layers.*.self_attn.q_norm": "layers.*.attn.q_norm",
    "model.layers.*.self_attn.k_norm": "layers.*.attn.k_norm",
    **{
        theirs: ours
        for theirs, ours in llama.TENSORS.items()
        if ours not in ("layers.*.attn_norm", "layers.*.mlp_norm")
    },
}


def build(c: Config) -> Decoder:
    """Compose the bricks that an OLMo 2 config.json describes."""
    _, heads = llama.sizes(c)
    eps = c.number("rms_norm_eps", 1e-5)

    def attention(make: llama.Make, index: int) -> nn.Module:
        return make(
            q_norm=WholeNorm(heads.queries, heads.dim, eps), k_norm=WholeNorm(heads.kv, heads.dim, eps)
        )

    return llama.build(c, attention=attention, block=InnerNorm)
