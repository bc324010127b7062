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
from .windows import windows

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


# Makes Llama's layer of a config's sizes; keywords change it.
Make = Callable[..., nn.Module]
# Makes the layer of one block from what makes Llama's, and the number of the block.
Layer = Callable[[Make, int], nn.Module]


def usual(make: Make, index: int) -> nn.Module:
    """Make Llama's own."""
    return make()


def sizes(c: Config) -> tuple[int, Heads]:
    """Return the width of the stream, and how its attention is divided."""
    width = c.count("hidden_size")
    queries = c.count("num_attention_heads", most=width)
    dim, kv = c.optional("head_dim"), c.count("num_key_value_heads", queries)
    return width, Heads.of(width, queries, kv) if dim is None else Heads(queries, kv, dim)


def build(
    c: Config,
    *,
    interleaved: bool = False,
    attention: Layer = usual,
    feedforward: Layer = usual,
    block: Make = PreNorm,
    kind: Make = Attention,
    norms: Callable[[int, float], nn.Module] = nn.RMSNorm,
    tied: bool = False,
) -> Decoder:
    """Compose the bricks that a Llama config.json describes.

    interleaved: how the weights pair channels. attention, feedforward: make the layers of a block. block:
    joins them. kind: what makes attention layers, of a width and heads. norms: what makes norms, of a width
    and an epsilon. tied: whether embedding and head are one where the file does not say.
    """
    width, heads = sizes(c)
    c.must("rope_interleaved", False)  # SmolLM2's files say so
    bias, position = c.flag("attention_bias", False), rotary(c, heads.dim, interleaved)
    attn = partial(kind, width, heads, position=position, bias=bias, out_bias=bias)
    act, hidden = c.activation("hidden_act", "silu"), c.count("intermediate_size")
    mlp = partial(GatedMLP, width, hidden=hidden, act=act, bias=c.flag("mlp_bias", False))
    norm = partial(norms, width, c.number("rms_norm_eps", 1e-6))

    def layer(index: int, window: int | None) -> nn.Module:
        make = partial(attn, score=Score(window=window))
        return block(norm(), attention(make, index), norm(), feedforward(mlp, index))

    seen = windows(c, c.count("num_hidden_layers", most=MOST_LAYERS))
    embed, head = ends(c, width, tied=tied)
    return Decoder(embed, [layer(index, window) for index, window in enumerate(seen)], norm(), head)
