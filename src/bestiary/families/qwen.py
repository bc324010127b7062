"""Qwen, the first generation: Llama with biases on q, k and v, whose rotary base a long prompt stretches.

Two dialects of config keys: August 2023's (n_embd, n_head, ...), and Hugging Face's since.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from ..bricks import Attention, GatedMLP, Heads, LogN, Plain, Position, PreNorm, Prompted, Rotary
from ..config import ACTIVATIONS, MOST_LAYERS, Config
from ..context import Prompt
from ..errors import ConfigError
from ..models import Decoder, causal
from ..tensors import Rules, Stacked

TENSORS: Rules = {
    "transformer.wte": "embed",
    "transformer.h.*.ln_1": "layers.*.attn_norm",
    "transformer.h.*.attn.c_attn": Stacked(("layers.*.attn.q", "layers.*.attn.k", "layers.*.attn.v")),
    "transformer.h.*.attn.c_proj": "layers.*.attn.o",
    "transformer.h.*.ln_2": "layers.*.mlp_norm",
    "transformer.h.*.mlp.w1": "layers.*.mlp.up",
    "transformer.h.*.mlp.w2": "layers.*.mlp.gate",
    "transformer.h.*.mlp.c_proj": "layers.*.mlp.down",
    "transformer.ln_f": "norm",
    "lm_head": "head",
}


def begin(tokens: Tensor, seen: Tensor | None = None, *, trained: int) -> Prompt:
    """Read prompts: one of up to 2 ** n times the trained length stretches the base by 2 ** (n + 1) - 1."""
    length = causal(tokens, seen).length
    n = torch.frexp((length - 1).div(trained, rounding_mode="floor").double()).exponent
    return Prompt(length, stretch=torch.exp2(n + 1.0) - 1)


def build(c: Config) -> Decoder:
    """Compose the bricks that a Qwen config.json describes."""
    width = c.count(c.either("hidden_size", "n_embd"))
    queries = c.count(c.either("num_attention_heads", "n_head"), most=width)
    heads = Heads(queries, queries, c.count("kv_channels", Heads.of(width, queries).dim))
    for key, computed in (("scale_attn_weights", True), ("use_cache_quantization", False)):
        c.must(key, computed)
    for name, only in (("activation", "swiglu"), ("pos_emb", "rotary"), ("rotary_pct", 1.0)):
        c.must(name, only)
    c.must("apply_residual_connection_post_layernorm", False)
    trained = c.count("seq_length", 8192, least=2)
    dynamic = c.flag("use_dynamic_ntk", True)
    position: Position = Rotary(
        heads.dim, c.number("rotary_emb_base", 10_000.0), frequencies=Prompted() if dynamic else Plain()
    )
    if c.flag("use_logn_attn", True):
        position = LogN(position, trained)
    bias = not c.flag("no_bias", True)
    double = c.count(c.either("intermediate_size", "ffn_hidden_size"))  # of the gate and of what it gates
    if double % 2:
        raise ConfigError(f"{c.where}: a feed-forward width of {double} is twice another; it should be even")
    norm = partial(nn.RMSNorm, width, c.number("layer_norm_epsilon", 1e-6))
    attn = partial(Attention, width, heads, position=position, out_bias=bias)
    mlp = partial(GatedMLP, width, double // 2, ACTIVATIONS["silu"], bias=bias)
    count = c.count(c.either("num_hidden_layers", "n_layer"), most=MOST_LAYERS)
    layers = [PreNorm(norm(), attn(bias=True), norm(), mlp()) for _ in range(count)]
    c.must("tie_word_embeddings", False)
    vocab = c.count("vocab_size")
    embed, head = nn.Embedding(c.count("padded_vocab_size", vocab), width), nn.Linear(width, vocab, False)
    reader = partial(begin, trained=trained) if dynamic else causal
    return Decoder(embed, layers, norm(), head, reader=reader)
