"""GLM-130B: published as SwissArmyTransformer shards, and described by that program's arguments."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch.nn.functional as F
from torch import nn

from ..bricks import Attention, BlankReader, BlankRotary, DeepNorm, GatedMLP, HalfPlain, Heads, Rotary
from ..config import MOST_LAYERS, Config
from ..models import Decoder
from ..quant.rows import HalfRowScaled
from ..swap import swap
from ..tensors import Rules, Stacked
from . import chatglm
from .ends import ends

TENSORS: Rules = {
    **chatglm.TENSORS,
    "transformer.layers.*.mlp.dense_h_to_4h": Stacked(("layers.*.mlp.up", "layers.*.mlp.gate")),
}

# The arguments in configs/model_glm_130b.sh: what was published has no other description.
RELEASED: Mapping[str, object] = {
    "model_class": "GLM130B",
    "num_layers": 70,
    "hidden_size": 12288,
    "inner_hidden_size": 32768,
    "vocab_size": 150528,
    "num_attention_heads": 96,
    "max_sequence_length": 2048,
    "layernorm_order": "post",
}


def build(c: Config) -> Decoder:
    """Compose the bricks that the arguments of a GLM-130B describe.

    The ids of its masks and of <sop>, which are no arguments, are those of its tokenizer, icetk-glm-130B.
    """
    c.must("model_class", "GLM130B")
    c.must("layernorm_order", "post")
    c.must("position_encoding_2d", False)
    width, count = c.count("hidden_size"), c.count("num_layers", most=MOST_LAYERS)
    heads = Heads.of(width, c.count("num_attention_heads", most=width))
    norm = partial(nn.LayerNorm, width, c.number("layernorm_epsilon", 1e-5))
    position = BlankRotary(Rotary(heads.dim, frequencies=HalfPlain()))
    attn = partial(Attention, width, heads, position=position, bias=True, out_bias=True)
    mlp = partial(GatedMLP, width, c.count("inner_hidden_size"), F.gelu, bias=True)
    layers = [DeepNorm(norm(), attn(), norm(), mlp(), math.sqrt(2 * count)) for _ in range(count)]
    onward = c.count("gmask_token_id", 150_001)
    masks = c.count("mask_token_id", 150_000), c.count("smask_token_id", 150_002), onward
    reader = BlankReader(c.count("sop_token_id", 150_004), masks, onward)
    embed, head = ends(c, width, tied=True)
    model = Decoder(embed, layers, norm(), head, reader=reader)
    ranks = c.count("model_parallel_size", 1, most=width)
    if bits := c.count("quantization_bit_width", 0, least=0):
        # Each rank's file was quantised by itself, and what is summed over ranks was cut along the rows.
        swap(model, r"layers\.\d+\.(attn\.[qkv]|mlp\.(gate|up))", partial(HalfRowScaled.like, bits=bits))
        cut = partial(HalfRowScaled.like, bits=bits, pieces=ranks)
        swap(model, r"layers\.\d+\.(attn\.o|mlp\.down)", cut)
    return model
