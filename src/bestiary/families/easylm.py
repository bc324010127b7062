"""LLaMA as EasyLM keeps it (koala): flax's names, matrices turned, and pairs of channels as neighbours."""

from __future__ import annotations

from collections.abc import Mapping

from ..config import Config
from ..models import Decoder
from ..tensors import Rules, Turned
from . import llama

_ROOT = "[params/][params/]"
_LAYER = f"{_ROOT}transformer/h/*"

TENSORS: Rules = {
    f"{_ROOT}transformer/wte:embedding": "embed:weight",
    f"{_LAYER}/attention_norm:kernel": "layers.*.attn_norm:weight",
    f"{_LAYER}/attention/wq:kernel": Turned("layers.*.attn.q:weight"),
    f"{_LAYER}/attention/wk:kernel": Turned("layers.*.attn.k:weight"),
    f"{_LAYER}/attention/wv:kernel": Turned("layers.*.attn.v:weight"),
    f"{_LAYER}/attention/wo:kernel": Turned("layers.*.attn.o:weight"),
    f"{_LAYER}/ffn_norm:kernel": "layers.*.mlp_norm:weight",
    f"{_LAYER}/feed_forward/w1:kernel": Turned("layers.*.mlp.gate:weight"),
    f"{_LAYER}/feed_forward/w2:kernel": Turned("layers.*.mlp.down:weight"),
    f"{_LAYER}/feed_forward/w3:kernel": Turned("layers.*.mlp.up:weight"),
    f"{_ROOT}transformer/ln_f:kernel": "norm:weight",
    f"{_ROOT}lm_head:kernel": Turned("head:weight"),
}


def published(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
    """Return the config.json that a stream of parameters amounts to, which is published without any.

    shapes: of the tensors, by name. Sizes are theirs; the rest is LLaMA's of EasyLM's own configs, 7B to 65B:
    128 channels a head, an epsilon of 1e-6.
    """

    def size(end: str, axis: int) -> int:
        found = (shape for name, shape in shapes.items() if name.endswith(end) and len(shape) == 2)
        return next((shape[axis] for shape in found), 0)

    width = size("wte/embedding", 1)
    return {
        "vocab_size": size("wte/embedding", 0),
        "hidden_size": width,
        "intermediate_size": size("feed_forward/w1/kernel", 1),
        "num_hidden_layers": sum(name.endswith("attention_norm/kernel") for name in shapes),
        "num_attention_heads": max(width // 128, 1),
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 2048,
    }


def build(c: Config) -> Decoder:
    """Compose the bricks that a Llama config.json describes, for weights that keep pairs together."""
    return llama.build(c, interleaved=True)
