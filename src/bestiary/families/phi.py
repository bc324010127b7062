"""Phi-1, 1.5 and 2: one norm for both halves of a block, biases throughout, rotary on a part of each head."""

from __future__ import annotations

from functools import partial

from torch import nn

from ..bricks import MLP, Attention, SharedParallel
from ..config import MOST_LAYERS, Config
from ..models import Decoder
from ..tensors import DROP, Rules
from .ends import ends
from .llama import sizes
from .rotary import rotary

TENSORS: Rules = {
    "model.embed_tokens": "embed",
    "model.layers.*.input_layernorm": "layers.*.attn_norm",
    "model.layers.*.self_attn.q_proj": "layers.*.attn.q",
    "model.layers.*.self_attn.k_proj": "layers.*.attn.k",
    "model.layers.*.self_attn.v_proj": "layers.*.attn.v",
    "model.layers.*.self_attn.dense": "layers.*.attn.o",
    "model.layers.*.self_attn.rotary_emb": DROP,
    "model.layers.*.mlp.fc1": "layers.*.mlp.up",
    "model.layers.*.mlp.fc2": "layers.*.mlp.down",
    "model.final_layernorm": "norm",
    "lm_head": "head",
}


def build(c: Config) -> Decoder:
    """Compose the bricks that a Phi config.json describes."""
    width, heads = sizes(c)
    c.must("qk_layernorm", False)
    norm = partial(nn.LayerNorm, width, c.number("layer_norm_eps", 1e-5))
    position = rotary(c, heads.dim, share=0.5)
    attn = partial(Attention, width, heads, position=position, bias=True, out_bias=True)
    mlp = partial(MLP, width, c.count("intermediate_size"), c.activation("hidden_act", "gelu_new"))
    count = c.count("num_hidden_layers", most=MOST_LAYERS)
    layers = [SharedParallel(norm(), attn(), mlp()) for _ in range(count)]
    embed, head = ends(c, width, tied=False, bias=True)
    return Decoder(embed, layers, norm(), head)
