"""MPT 7B and 30B, StoryWriter among them: ALiBi, norms without biases, clamped queries, keys and values."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from ..bricks import MLP, ALiBi, Attention, ClippedAttention, Heads, PreNorm, slopes
from ..config import MOST_LAYERS, Config
from ..context import Score
from ..models import Decoder
from ..tensors import Rules, Stacked
from .ends import ends

TENSORS: Rules = {
    "transformer.wte": "embed",
    "transformer.blocks.*.norm_1": "layers.*.attn_norm",
    "transformer.blocks.*.attn.Wqkv": Stacked(("layers.*.attn.q", "layers.*.attn.k", "layers.*.attn.v")),
    "transformer.blocks.*.attn.out_proj": "layers.*.attn.o",
    "transformer.blocks.*.norm_2": "layers.*.mlp_norm",
    "transformer.blocks.*.ffn.up_proj": "layers.*.mlp.up",
    "transformer.blocks.*.ffn.down_proj": "layers.*.mlp.down",
    "transformer.norm_f": "norm",
    "lm_head": "head",
}


def build(c: Config) -> Decoder:
    """Compose the bricks that an MPT config.json describes.

    Nothing bounds the length: positions are differences, and StoryWriter reads past its max_seq_len.
    """
    a = c.section("attn_config") or Config({})
    c.must("no_bias", True)
    c.must("norm_type", "low_precision_layernorm", "layernorm")
    c.must("learned_pos_emb", True, False)  # says nothing beside ALiBi
    a.must("alibi", True)
    a.must("attn_type", "multihead_attention")
    for key in ("prefix_lm", "qk_ln"):
        a.must(key, False)
    width, queries = c.count("d_model"), c.count("n_heads")
    scale = a.number("softmax_scale") if "softmax_scale" in a else None
    score = Score(scale=scale, bias=ALiBi(slopes(queries, a.number("alibi_bias_max", 8))))
    heads = Heads.of(width, queries)
    attn: Callable[[], Attention] = partial(Attention, width, heads, score=score)
    if "clip_qkv" in a:
        attn = partial(ClippedAttention, width, heads, score=score, limit=a.number("clip_qkv"))
    norm = partial(nn.LayerNorm, width, c.number("layer_norm_epsilon", 1e-5), bias=False)
    mlp = partial(MLP, width, width * c.count("expansion_ratio", 4), nn.functional.gelu, bias=False)
    layers = [PreNorm(norm(), attn(), norm(), mlp()) for _ in range(c.count("n_layers", most=MOST_LAYERS))]
    embed, head = ends(c, width, tied=True)
    return Decoder(embed, layers, norm(), head)
