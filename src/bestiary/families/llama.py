"""Llama, and everything that computes exactly what Llama computes: Mistral, Vicuna, Yi, Aquila, XVERSE."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from ..bricks import Attention, GatedMLP, Heads, PreNorm
from ..config import MOST_LAYERS, Config
from ..context import Score
from ..models import Decoder
from ..tensors import DROP, Rules
from .ends import ends
from .rotary import rotary

TENSORS: Rules = {
    "model.embed_tokens": "embed",
    "model.layers.*.input_layernorm": "layers.*.attn_norm",
    "model.layers.*.ln1": "layers.*.attn_norm",  # Yi's names of November 2023
    "model.layers.*.self_attn.q_proj": "layers.*.attn.q",
    "model.layers.*.self_attn.k_proj": "layers.*.attn.k",
    "model.layers.*.self_attn.v_proj": "layers.*.attn.v",
    "model.layers.*.self_attn.o_proj": "layers.*.attn.o",
    "model.layers.*.self_attn.rotary_emb": DROP,
    "model.layers.*.post_attention_layernorm": "layers.*.mlp_norm",
    "model.layers.*.ln2": "layers.*.mlp_norm",
    "model.layers.*.mlp.gate_proj": "layers.*.mlp.gate",
    "model.layers.*.mlp.up_proj": "layers.*.mlp.up",
    "model.layers.*.mlp.down_proj": "layers.*.mlp.down",
    "model.norm": "norm",
    "lm_head": "head",
}


# Makes one feed-forward layer of a config's sizes.
Expert = Callable[[], nn.Module]


def sizes(c: Config) -> tuple[int, Heads]:
    """Return the width of the stream, and how its attention is divided."""
    width = c.count("hidden_size")
    queries = c.count("num_attention_heads", most=width)
    dim, kv = c.optional("head_dim"), c.count("num_key_value_heads", queries)
    return width, Heads.of(width, queries, kv) if dim is None else Heads(queries, kv, dim)


def attention(c: Config, interleaved: bool = False) -> Callable[[], nn.Module]:
    """Return what makes the attention layer of a block."""
    width, heads = sizes(c)
    bias, score = c.flag("attention_bias", False), Score(window=c.optional("sliding_window"))
    position = rotary(c, heads.dim, interleaved)
    return partial(Attention, width, heads, score=score, position=position, bias=bias, out_bias=bias)


def build(
    c: Config,
    *,
    interleaved: bool = False,
    feedforward: Callable[[Expert, int], nn.Module] = lambda expert, index: expert(),
    attn: Callable[[], nn.Module] | None = None,
    layer_norm: Callable[[int, float], nn.Module] = nn.RMSNorm,
) -> Decoder:
    """Compose the bricks that a Llama config.json describes.

    interleaved: how the weights pair channels. feedforward: makes the feed-forward layer of a block from what
    makes Llama's, and the number of the block. attn: makes the attention layer, where it is not Llama's.
    layer_norm: makes every norm of a width and an epsilon.
    """
    width, _ = sizes(c)
    act = c.activation("hidden_act", "silu")
    norm = partial(layer_norm, width, c.number("rms_norm_eps", 1e-6))
    attn = attn or attention(c, interleaved)
    mlp = partial(GatedMLP, width, c.count("intermediate_size"), act, bias=c.flag("mlp_bias", False))
    layers = [
        PreNorm(norm(), attn(), norm(), feedforward(mlp, index))
        for index in range(c.count("num_hidden_layers", most=MOST_LAYERS))
    ]
    embed, head = ends(c, width, tied=False)
    return Decoder(embed, layers, norm(), head)
