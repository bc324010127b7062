"""ChatGLM2-6B and ChatGLM3-6B: one network, and two meanings of rope_ratio."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import nn

from ..bricks import Attention, GatedMLP, Heads, Position, PreNorm, Rotary, Slowed
from ..config import MOST_LAYERS, Config
from ..errors import ConfigError
from ..models import Decoder
from ..quant.rows import HalfRowScaled
from ..tensors import DROP, Rules, Stacked
from . import ptuning
from .chatglm import quantised

_LAYER = "transformer.encoder.layers.*"

TENSORS: Rules = {
    **ptuning.TENSORS,
    "transformer.embedding.word_embeddings": "embed",
    "transformer.rotary_pos_emb": DROP,
    f"{_LAYER}.input_layernorm": "layers.*.attn_norm",
    f"{_LAYER}.self_attention.query_key_value": Stacked(
        ("layers.*.attn.q", "layers.*.attn.k", "layers.*.attn.v")
    ),
    f"{_LAYER}.self_attention.dense": "layers.*.attn.o",
    f"{_LAYER}.post_attention_layernorm": "layers.*.mlp_norm",
    f"{_LAYER}.mlp.dense_h_to_4h": Stacked(("layers.*.mlp.gate", "layers.*.mlp.up")),
    f"{_LAYER}.mlp.dense_4h_to_h": "layers.*.mlp.down",
    "transformer.encoder.final_layernorm": "norm",
    "transformer.output_layer": "head",
}


def build(c: Config) -> Decoder:
    """Compose the bricks that a ChatGLM2 or ChatGLM3 config.json describes."""
    width = c.count("hidden_size")
    queries, dim = c.count("num_attention_heads", most=width), c.count("kv_channels")
    groups = c.count("multi_query_group_num", queries)
    heads = Heads(queries, groups if c.flag("multi_query_attention", False) else queries, dim)
    for key in ("rmsnorm", "post_layer_norm", "original_rope"):
        c.must(key, True)
    for key in ("apply_residual_connection_post_layernorm", "tie_word_embeddings"):
        c.must(key, False)
    c.must("fp32_residual_connection", False, True)  # a precision of half-precision runs
    bias, position = c.flag("add_bias_linear", False), _rotary(c, dim // 2)
    norm = partial(nn.RMSNorm, width, c.number("layernorm_epsilon", 1e-5))
    biased = c.flag("add_qkv_bias", False) or bias
    attn = partial(Attention, width, heads, position=position, bias=biased, out_bias=bias)
    mlp = partial(GatedMLP, width, c.count("ffn_hidden_size"), F.silu, bias=bias)
    layers = [PreNorm(norm(), attn(), norm(), mlp()) for _ in range(c.count("num_layers", most=MOST_LAYERS))]
    vocab = c.count(c.either("padded_vocab_size", "vocab_size"))
    model = Decoder(nn.Embedding(vocab, width), layers, norm(), nn.Linear(width, vocab, bias=False))
    quantised(c, model, HalfRowScaled)
    return ptuning.tuned(c, model, width)


def _rotary(c: Config, dim: int) -> Position:
    """Read rope_ratio: ChatGLM2-6B-32K divides positions by it, ChatGLM3 and GLM-4 multiply the base.

    Their configs differ in nothing else than the name of the repository and the version that wrote them.
    """
    ratio, name = c.number("rope_ratio", 1.0), c.text("_name_or_path", "").lower()
    version = c.get("transformers_version", None)
    if ratio == 1 or "chatglm3" in name or "glm-4" in name:
        return Rotary(dim, 10_000.0 * ratio, interleaved=True)
    if "chatglm2" in name or version == "4.27.1":
        return Slowed(Rotary(dim, interleaved=True), ratio)
    if version == "4.30.2":
        return Rotary(dim, 10_000.0 * ratio, interleaved=True)
    raise ConfigError(
        f"{c.where}: rope_ratio = {ratio} divides positions in ChatGLM2 and multiplies the base in ChatGLM3, "
        "and nothing here says which this is; set _name_or_path to THUDM/chatglm2-6b-32k or "
        "THUDM/chatglm3-6b-32k"
    )
