"""Llama, Mistral, Mixtral and Aquila as their authors keep them: params.json, and pairs as neighbours."""

from __future__ import annotations

import math

from ..config import Config
from ..models import Decoder
from ..tensors import DROP, Rules
from . import llama, mixtral

# Meta's say -1: as many as the tokenizer has.
SIZES = {"vocab_size": "tok_embeddings.weight"}

_MLP = "layers.*.feed_forward"

TENSORS: Rules = {
    "tok_embeddings": "embed",
    "layers.*.attention_norm": "layers.*.attn_norm",
    "layers.*.attention.wq": "layers.*.attn.q",
    "layers.*.attention.wk": "layers.*.attn.k",
    "layers.*.attention.wv": "layers.*.attn.v",
    "layers.*.attention.wo": "layers.*.attn.o",
    "layers.*.ffn_norm": "layers.*.mlp_norm",
    f"{_MLP}.w1": "layers.*.mlp.gate",
    f"{_MLP}.w2": "layers.*.mlp.down",
    f"{_MLP}.w3": "layers.*.mlp.up",
    f"{_MLP}.gate": "layers.*.mlp.route",
    f"{_MLP}.experts.*.w1": "layers.*.mlp.experts.*.gate",
    f"{_MLP}.experts.*.w2": "layers.*.mlp.experts.*.down",
    f"{_MLP}.experts.*.w3": "layers.*.mlp.experts.*.up",
    "norm": "norm",
    "output": "head",
    "rope": DROP,
}


def build(c: Config) -> Decoder:
    """Compose the bricks that a params.json describes."""
    told = spelled(c)
    make = mixtral.build if told["model_type"] == "mixtral" else llama.build
    return make(Config(told), interleaved=True)


def spelled(c: Config) -> dict[str, object]:
    """Return what Hugging Face's ports of these models say in config.json, from a params.json."""
    width, queries = c.count("dim"), c.count("n_heads")
    window = c.optional("sliding_window")
    told: dict[str, object] = {
        "model_type": "llama" if window is None else "mistral",
        "hidden_size": width,
        "num_hidden_layers": c.count("n_layers"),
        "num_attention_heads": queries,
        "num_key_value_heads": c.count("n_kv_heads", queries),
        "head_dim": c.optional("head_dim"),
        "intermediate_size": _hidden(c, width),
        "rms_norm_eps": c.number("norm_eps"),
        "rope_theta": c.number("rope_theta", 10_000.0),
        "sliding_window": window,
        "vocab_size": c.count("vocab_size"),
    }
    c.must("use_scaled_rope", False)
    if (moe := c.section("moe")) is not None:
        told["model_type"] = "mixtral"
        told["num_local_experts"] = moe.count("num_experts")
        told["num_experts_per_tok"] = moe.count("num_experts_per_tok")
    return told


def _hidden(c: Config, width: int) -> int:
    """Return the width of a feed-forward layer: as the file says, or 8/3 of the stream's, rounded up."""
    if "hidden_dim" in c:
        return c.count("hidden_dim")
    hidden = int(c.number("ffn_dim_multiplier", 1.0) * int(2 * 4 * width / 3))
    step = c.count("multiple_of", 256)
    return step * math.ceil(hidden / step)
