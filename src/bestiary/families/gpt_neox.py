"""GPT-NeoX-20B, Pythia, Dolly 2, RedPajama-INCITE: rotary positions on a part of each head."""

from __future__ import annotations

from functools import partial

from torch import nn

from ..bricks import MLP, Attention, Heads, Parallel, PreNorm
from ..config import MOST_LAYERS, Config
from ..models import Decoder
from ..tensors import DROP, ByHead, Rules
from .ends import ends
from .rotary import rotary

TENSORS: Rules = {
    "gpt_neox.embed_in": "embed",
    "gpt_neox.layers.*.input_layernorm": "layers.*.attn_norm",
    "gpt_neox.layers.*.attention.query_key_value": ByHead("layers.*.attn"),
    "gpt_neox.layers.*.attention.dense": "layers.*.attn.o",
    "gpt_neox.layers.*.attention.rotary_emb": DROP,
    "gpt_neox.layers.*.attention": DROP,  # the causal mask of old files
    "gpt_neox.layers.*.post_attention_layernorm": "layers.*.mlp_norm",
    "gpt_neox.layers.*.mlp.dense_h_to_4h": "layers.*.mlp.up",
    "gpt_neox.layers.*.mlp.dense_4h_to_h": "layers.*.mlp.down",
    "gpt_neox.final_layer_norm": "norm",
    "embed_out": "head",
}


def build(c: Config) -> Decoder:
    """Compose the bricks that a GPT-NeoX config.json describes."""
    width, bias = c.count("hidden_size"), c.flag("attention_bias", True)
    c.must("is_decoder", False, True)  # it always is
    heads = Heads.of(width, c.count("num_attention_heads", most=width))
    norm = partial(nn.LayerNorm, width, c.number("layer_norm_eps", 1e-5))
    position = rotary(c, heads.dim, share=0.25)
    attn = partial(Attention, width, heads, position=position, bias=bias, out_bias=bias)
    mlp = partial(MLP, width, c.count("intermediate_size"), c.activation("hidden_act", "gelu"))
    block = Parallel if c.flag("use_parallel_residual", True) else PreNorm
    count = c.count("num_hidden_layers", most=MOST_LAYERS)
    layers = [block(norm(), attn(), norm(), mlp()) for _ in range(count)]
    embed, head = ends(c, width, tied=False)
    return Decoder(embed, layers, norm(), head)
