"""StarCoder2: LayerNorm, a plain feed-forward layer, biases throughout, and a window."""

from __future__ import annotations

from functools import partial

from torch import nn

from ..bricks import MLP, Attention, PreNorm
from ..config import MOST_LAYERS, Config
from ..context import Score
from ..models import Decoder
from ..tensors import Rules
from . import llama
from .ends import ends
from .rotary import rotary
from .windows import windows

TENSORS: Rules = {
    "model.layers.*.mlp.c_fc": "layers.*.mlp.up",
    "model.layers.*.mlp.c_proj": "layers.*.mlp.down",
    **llama.TENSORS,
}


def build(c: Config) -> Decoder:
    """Compose the bricks that a StarCoder2 config.json describes."""
    width, heads = llama.sizes(c)
    bias, act = c.flag("use_bias", True), c.activation("hidden_act", "gelu_pytorch_tanh")
    for key, computed in (("norm_type", "layer_norm"), ("mlp_type", "default")):
        c.must(key, computed)
    c.must("activation_function", "gelu")  # in the 3B's file; hidden_act is what counts
    norm = partial(nn.LayerNorm, width, c.number(c.either("norm_epsilon", "layer_norm_epsilon"), 1e-5))
    attn = partial(Attention, width, heads, position=rotary(c, heads.dim), bias=bias, out_bias=bias)
    mlp = partial(MLP, width, c.count("intermediate_size"), act, bias=bias)
    seen = windows(c, c.count("num_hidden_layers", most=MOST_LAYERS))
    layers = [PreNorm(norm(), attn(score=Score(window=window)), norm(), mlp()) for window in seen]
    embed, head = ends(c, width, tied=True)
    return Decoder(embed, layers, norm(), head)
