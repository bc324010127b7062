"""GGUF files: one vocabulary of tensor names for every architecture, and metadata in place of config.json.

Spec: ggml/docs/gguf.md. Rows of q and k are stored so that rotary pairs are neighbours; they stay so in
memory, and the bricks are told (Rotary.interleaved).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..config import Config
from ..errors import ConfigError
from ..models import Decoder
from ..tensors import DROP, Rules
from . import llama

TENSORS: Rules = {
    "token_embd": "embed",
    "blk.*.attn_norm": "layers.*.attn_norm",
    "blk.*.attn_q": "layers.*.attn.q",
    "blk.*.attn_k": "layers.*.attn.k",
    "blk.*.attn_v": "layers.*.attn.v",
    "blk.*.attn_output": "layers.*.attn.o",
    "blk.*.ffn_norm": "layers.*.mlp_norm",
    "blk.*.ffn_gate": "layers.*.mlp.gate",
    "blk.*.ffn_up": "layers.*.mlp.up",
    "blk.*.ffn_down": "layers.*.mlp.down",
    "rope_freqs": DROP,  # read into the config's rope_scaling by published()
    "output_norm": "norm",
    "output": "head",
}

# general.architecture -> how its published config is composed.
ARCHITECTURES: Mapping[str, Callable[[Config], Decoder]] = {
    "llama": lambda c: llama.build(c, interleaved=True),
}


def published(
    metadata: Mapping[str, object], names: frozenset[str], rope_freqs: list[float] | None
) -> dict[str, object]:
    """Return the config.json that a file's metadata amounts to.

    names: the file's tensor names. rope_freqs: the values of the tensor of that name, if there is one. Raises
    ConfigError for an architecture or a key that is not computed here.
    """
    kind = metadata.get("general.architecture")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise ConfigError(f"GGUF metadata: general.architecture = {kind!r} is not known here; known: {known}")
    prefix = f"{kind}."
    m = Config(
        {key.removeprefix(prefix): v for key, v in metadata.items() if key.startswith(prefix)}, f"GGUF {kind}"
    )
    queries, width = m.count("attention.head_count"), m.count("embedding_length")
    dim = m.count("attention.key_length", width // queries or 1)
    m.must("attention.value_length", dim)
    m.must("rope.dimension_count", dim)
    config: dict[str, object] = {
        "model_type": kind,
        "hidden_size": width,
        "num_attention_heads": queries,
        "num_key_value_heads": m.count("attention.head_count_kv", queries),
        "head_dim": dim,
        "intermediate_size": m.count("feed_forward_length"),
        "num_hidden_layers": m.count("block_count"),
        "rms_norm_eps": m.number("attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": m.count("context_length"),
        "rope_theta": m.number("rope.freq_base", 10_000.0),
        "rope_scaling": _scaling(m, rope_freqs),
        "sliding_window": m.optional("attention.sliding_window"),
        "attention_bias": "blk.0.attn_q.bias" in names,
        "tie_word_embeddings": "output.weight" not in names,
        "vocab_size": m.count("vocab_size", _tokens(metadata)),
    }
    m.finish()
    return config


def build(c: Config) -> Decoder:
    """Compose the bricks of a config that came from `published`."""
    return ARCHITECTURES[c.text("model_type")](c)


def _tokens(metadata: Mapping[str, object]) -> int:
    tokens = metadata.get("tokenizer.ggml.tokens")
    try:
        return len(tokens)  # type: ignore[arg-type]  # whatever a file may hold there
    except TypeError:
        raise ConfigError("GGUF metadata has neither vocab_size nor tokenizer.ggml.tokens") from None


def _scaling(m: Config, rope_freqs: list[float] | None) -> dict[str, object] | None:
    kind = m.text("rope.scaling.type", "none")
    m.get("rope.scaling.finetuned", None)
    # llama.cpp's older spelling of linear scaling is the bare factor.
    old = m.number("rope.scale_linear", 1.0)
    factor = m.number("rope.scaling.factor", old)
    trained = m.optional("rope.scaling.original_context_length")
    if rope_freqs is not None:
        return {"rope_type": "factors", "factors": rope_freqs}
    if kind == "none" and factor == 1.0:
        return None
    if kind in ("linear", "none"):
        return {"rope_type": "linear", "factor": factor}
    scaling: dict[str, object] = {"rope_type": kind, "factor": factor}
    if trained is not None:
        scaling["original_max_position_embeddings"] = trained
    return scaling
