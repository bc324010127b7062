"""Phi-3, Phi-3.5 and Phi-4: Llama with fused projections, and rotary factors that change with the length."""

from __future__ import annotations

from ..config import Config
from ..models import Decoder
from ..tensors import Rules, Stacked
from . import llama

TENSORS: Rules = {
    "model.layers.*.self_attn.qkv_proj": Stacked(("layers.*.attn.q", "layers.*.attn.k", "layers.*.attn.v")),
    "model.layers.*.mlp.gate_up_proj": Stacked(("layers.*.mlp.gate", "layers.*.mlp.up")),
    **llama.TENSORS,
}


def build(c: Config) -> Decoder:
    """Compose the bricks that a Phi-3 config.json describes."""
    c.optional("original_max_position_embeddings")  # counts where the positions are scaled
    for key, computed in (("full_attn_mod", 1), ("interpolate_factor", 1), ("lm_head_bias", False)):
        c.must(key, computed)  # Phi-4-mini's
    return llama.build(c)
