"""Command R: one norm for both halves of a block, neighbouring channels turned, logits times a constant."""

from __future__ import annotations

from functools import partial

from torch import nn

from ..bricks import Attention, GatedMLP, HeadNorm, Scale, SharedParallel
from ..config import MOST_LAYERS, Config
from ..models import Decoder
from ..tensors import InRows, Rules
from . import llama
from .ends import ends
from .rotary import rotary


def TENSORS(c: Config) -> Rules:  # noqa: N802  # a table in most families
    """Return the names: Llama's, and norms of queries and keys with a row for each head."""
    _, heads = llama.sizes(c)
    return {
        **llama.TENSORS,
        "lm_head": "head.0",
        "model.layers.*.self_attn.q_norm": InRows("layers.*.attn.q_norm", heads.queries),
        "model.layers.*.self_attn.k_norm": InRows("layers.*.attn.k_norm", heads.kv),
    }


def build(c: Config) -> Decoder:
    """Compose the bricks that a Cohere config.json describes."""
    width, heads = llama.sizes(c)
    eps, bias = c.number("layer_norm_eps", 1e-5), c.flag("attention_bias", False)
    normed = c.flag("use_qk_norm", False)
    norm, position = partial(nn.LayerNorm, width, eps, bias=False), rotary(c, heads.dim, interleaved=True)
    mlp = partial(GatedMLP, width, c.count("intermediate_size"), c.activation("hidden_act", "silu"))

    def head_norm(count: int) -> nn.Module:
        return HeadNorm(count, heads.dim, eps) if normed else nn.Identity()

    def attn() -> Attention:
        q_norm, k_norm = head_norm(heads.queries), head_norm(heads.kv)
        kind = partial(Attention, position=position, bias=bias, out_bias=bias)
        return kind(width, heads, q_norm=q_norm, k_norm=k_norm)

    layers = [
        SharedParallel(norm(), attn(), mlp()) for _ in range(c.count("num_hidden_layers", most=MOST_LAYERS))
    ]
    embed, head = ends(c, width, tied=True)
    scaled = nn.Sequential(head, Scale(c.number("logit_scale", 0.0625)))
    return Decoder(embed, layers, norm(), scaled)
