"""LLaMA as TencentPretrain keeps it (Linly): that program's options, and pairs of channels as neighbours."""

from __future__ import annotations

from collections.abc import Mapping

from ..config import Config
from ..models import Decoder
from ..tensors import Rules
from . import llama

SIZES = {"vocab_size": "embedding.word.embedding.weight"}

_LAYER = "encoder.transformer.*"

TENSORS: Rules = {
    "embedding.word.embedding": "embed",
    f"{_LAYER}.layer_norm_1": "layers.*.attn_norm",
    f"{_LAYER}.self_attn.linear_layers.0": "layers.*.attn.q",
    f"{_LAYER}.self_attn.linear_layers.1": "layers.*.attn.k",
    f"{_LAYER}.self_attn.linear_layers.2": "layers.*.attn.v",
    f"{_LAYER}.self_attn.final_linear": "layers.*.attn.o",
    f"{_LAYER}.layer_norm_2": "layers.*.mlp_norm",
    f"{_LAYER}.feed_forward.linear_gate": "layers.*.mlp.gate",
    f"{_LAYER}.feed_forward.linear_1": "layers.*.mlp.up",
    f"{_LAYER}.feed_forward.linear_2": "layers.*.mlp.down",
    "encoder.layer_norm": "norm",
    "target.lm.output_layer": "head",
}

# What its options say of a LLaMA (models/llama/7b_config.json of Tencent/TencentPretrain). All but sizes.
_LLAMA: Mapping[str, object] = {
    "embedding": ["word"],
    "remove_embedding_layernorm": True,
    "remove_transformer_bias": True,
    "rotary_position_embedding": True,
    "encoder": "transformer",
    "feed_forward": "gated",
    "mask": "causal",
    "layernorm_positioning": "pre",
    "layernorm": "rms",
    "target": ["lm"],
}
# Options of other models, with what stands for "not so".
_OTHERS = (
    "factorized_embedding_parameterization", "relative_position_embedding", "remove_attention_scale",
    "parameter_sharing", "has_residual_attention", "has_lmtarget_bias", "alibi_position_embedding",
    "layer_number_scale", "bidirectional",
)  # fmt: skip


def build(c: Config) -> Decoder:
    """Compose a LLaMA of the options of TencentPretrain. Raises ConfigError for those of other models."""
    return llama.build(Config(spelled(c)), interleaved=True)


def spelled(c: Config) -> dict[str, object]:
    """Return what Hugging Face's port of such a LLaMA says in config.json. Raises as build does."""
    for key, value in _LLAMA.items():
        c.get(key)  # whose absence means another model
        c.must(key, value)
    for key in _OTHERS:
        c.must(key, False)
    c.get("data_processor", None)
    width, heads = c.count("hidden_size"), c.count("heads_num")
    c.must("emb_size", width)
    return {
        "model_type": "llama",
        "hidden_size": width,
        "num_hidden_layers": c.count("layers_num"),
        "num_attention_heads": heads,
        "num_key_value_heads": c.count("local_kv_heads_num", heads),
        "intermediate_size": c.count("feedforward_size"),
        "hidden_act": c.text("hidden_act"),
        "rms_norm_eps": c.number("layernorm_eps", 1e-6),
        "tie_word_embeddings": c.flag("tie_weights", False),
        "vocab_size": c.count("vocab_size"),
        "max_position_embeddings": c.count("max_seq_length", 2048),
    }


def published(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object] | None:
    """Return the options that a file without a config.json was published with; None for another program's.

    shapes: of its tensors, by name. Linly's files have only these; every LLaMA has 128 channels a head.
    """
    first = "encoder.transformer.0"
    wanted = {
        "width": "embedding.word.embedding.weight",
        "values": f"{first}.self_attn.linear_layers.2.weight",
        "wide": f"{first}.feed_forward.linear_1.weight",
    }
    found = {key: shapes.get(name, ()) for key, name in wanted.items()}
    if any(len(shape) != 2 for shape in found.values()):
        return None
    width = found["width"][1]
    return {
        **_LLAMA,
        "emb_size": width,
        "hidden_size": width,
        "feedforward_size": found["wide"][0],
        "heads_num": max(width // 128, 1),
        "local_kv_heads_num": max(found["values"][0] // 128, 1),
        "layers_num": sum(name.endswith(".layer_norm_1.weight") for name in shapes),
        "hidden_act": "silu",
        "max_seq_length": 2048,
    }
