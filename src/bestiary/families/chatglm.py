"""ChatGLM-6B: GLM's blanks with 2-D rotary positions, in either vocabulary, in 16, 8 or 4 bits."""

from __future__ import annotations

import math
from functools import partial

from torch import nn

from ..bricks import MLP, Attention, BlankReader, BlankRotary2D, DeepNorm, HalfPlain, Heads, Rotary
from ..config import ACTIVATIONS, MOST_LAYERS, Config
from ..models import Decoder
from ..quant.rows import RowScaled, RowScaledEmbedding
from ..swap import swap
from ..tensors import DROP, ByHead, Rules
from . import ptuning
from .ends import ends

TENSORS: Rules = {
    **ptuning.TENSORS,
    "transformer.word_embeddings": "embed",
    "transformer.layers.*.input_layernorm": "layers.*.attn_norm",
    "transformer.layers.*.attention.query_key_value": ByHead("layers.*.attn"),
    "transformer.layers.*.attention.rotary_emb": DROP,  # not rounded as the model rounds it
    "transformer.layers.*.attention.dense": "layers.*.attn.o",
    "transformer.layers.*.post_attention_layernorm": "layers.*.mlp_norm",
    "transformer.layers.*.mlp.dense_h_to_4h": "layers.*.mlp.up",
    "transformer.layers.*.mlp.dense_4h_to_h": "layers.*.mlp.down",
    "transformer.final_layernorm": "norm",
    "lm_head": "head",
}

# The published code tells no block how many layers there are: all of them are scaled for 28.
_ALPHA = math.sqrt(2 * 28)


def build(c: Config) -> Decoder:
    """Compose the bricks that a ChatGLM-6B config.json describes. Absent ids are those of 150,528 tokens."""
    width = c.count("hidden_size")
    heads = Heads.of(width, c.count("num_attention_heads", most=width))
    c.must("position_encoding_2d", True)
    norm = partial(nn.LayerNorm, width, c.number("layernorm_epsilon", 1e-5))
    position = BlankRotary2D(Rotary(heads.dim // 2, frequencies=HalfPlain()))
    attn = partial(Attention, width, heads, position=position, bias=True, out_bias=True)
    mlp = partial(MLP, width, c.count("inner_hidden_size", 4 * width), ACTIVATIONS["gelu_new"])
    layers = [
        DeepNorm(norm(), attn(), norm(), mlp(), _ALPHA)
        for _ in range(c.count("num_layers", most=MOST_LAYERS))
    ]
    masks = c.count("gmask_token_id", 150_001), c.count("mask_token_id", 150_000)
    reader = BlankReader(c.count("bos_token_id", 150_004), masks)
    embed, head = ends(c, width, tied=True)
    model = Decoder(embed, layers, norm(), head, reader=reader)
    quantised(c, model, RowScaled)
    if c.flag("quantization_embeddings", False):
        # One table for both ends (chatglm-6b-int4-qe).
        both = RowScaled.like(head, bits=c.count("quantization_bit"))
        model.embed, model.head = RowScaledEmbedding(both), both
    return ptuning.tuned(c, model, width, table=width)


def quantised(c: Config, model: Decoder, kind: type[RowScaled]) -> None:
    """Make the blocks' linear layers what a config.json's quantization_bit says."""
    if bits := c.count("quantization_bit", 0, least=0):
        swap(model, r"layers\.\d+\.(attn|mlp)\.(q|k|v|o|gate|up|down)", partial(kind.like, bits=bits))
