"""BLOOM and BLOOMZ: ALiBi, and a norm on the embedded tokens."""

from __future__ import annotations

from functools import partial

from torch import nn

from ..bricks import MLP, ALiBi, Attention, Heads, PreNorm, slopes
from ..config import ACTIVATIONS, MOST_LAYERS, Config
from ..context import Score
from ..models import Decoder
from ..tensors import ByHead, Rules
from .ends import ends

TENSORS: Rules = {
    "[transformer.]word_embeddings": "embed.0",
    "[transformer.]word_embeddings_layernorm": "embed.1",
    "[transformer.]h.*.input_layernorm": "layers.*.attn_norm",
    "[transformer.]h.*.self_attention.query_key_value": ByHead("layers.*.attn"),
    "[transformer.]h.*.self_attention.dense": "layers.*.attn.o",
    "[transformer.]h.*.post_attention_layernorm": "layers.*.mlp_norm",
    "[transformer.]h.*.mlp.dense_h_to_4h": "layers.*.mlp.up",
    "[transformer.]h.*.mlp.dense_4h_to_h": "layers.*.mlp.down",
    "[transformer.]ln_f": "norm",
    "lm_head": "head",
}


def build(c: Config) -> Decoder:
    """Compose the bricks that a BLOOM config.json describes."""
    width = c.count(c.either("hidden_size", "n_embed"))
    heads = Heads.of(width, c.count(c.either("n_head", "num_attention_heads"), most=width))
    c.must("apply_residual_connection_post_layernorm", False)
    c.must("skip_bias_add_qkv", False)
    norm = partial(nn.LayerNorm, width, c.number("layer_norm_epsilon", 1e-5))
    score = Score(bias=ALiBi(slopes(heads.queries)))
    attn = partial(Attention, width, heads, score=score, bias=True, out_bias=True)
    mlp = partial(MLP, width, c.count("n_inner", 4 * width), ACTIVATIONS["gelu_new"])
    count = c.count(c.either("n_layer", "num_hidden_layers"), most=MOST_LAYERS)
    layers = [PreNorm(norm(), attn(), norm(), mlp()) for _ in range(count)]
    embed, head = ends(c, width, tied=True)
    return Decoder(nn.Sequential(embed, norm()), layers, norm(), head)
