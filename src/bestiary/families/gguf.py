"""GGUF files: metadata in place of config.json, and names of tensors that all architectures share.

Spec: ggml/docs/gguf.md. What the architectures differ in is data: gguf_architectures.py. Tensors stay in
memory as they are stored, and the bricks are told: where rotary pairs are neighbours (Rotary.interleaved),
and that Gemma's norms have their offset in their weights (RMSNorm in place of OffsetRMSNorm).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from torch import nn

from ..bricks import Attention, OffsetRMSNorm, Rotary
from ..config import Config
from ..errors import ConfigError
from ..models import Decoder
from ..tensors import Each, Rules
from . import family
from .gguf_architectures import ARCHITECTURES, Architecture
from .heads import Build

# Of several files the keys of experts' sizes in config.json.
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


def described(
    metadata: Mapping[str, object], names: frozenset[str], rope_freqs: list[float] | None
) -> tuple[dict[str, object], Rules, Build]:
    """Return the config.json that a file's metadata amounts to, its names, and what builds its model.

    names: the file's tensor names. rope_freqs: the values of the tensor of that name, if there is one. Raises
    ConfigError for an architecture or a key that is not computed here.
    """
    row = architecture(metadata, names)
    config = published(row, metadata, names, rope_freqs)

    def build(c: Config) -> Decoder:
        return restated(_decoder(c), row)

    return config, rules(row, config), build


def architecture(metadata: Mapping[str, object], names: frozenset[str]) -> Architecture:
    """Return the row of a file. Raises ConfigError for an architecture that has none."""
    kind = metadata.get("general.architecture")
    for row in ARCHITECTURES:
        if row.holds(kind, names):
            return row
    known = ", ".join(sorted({row.kind for row in ARCHITECTURES}))
    shown = str(kind)[:80]
    raise ConfigError(f"GGUF metadata: general.architecture = {shown!r} is not known here; known: {known}")


def rules(row: Architecture, config: Mapping[str, object]) -> Rules:
    """Return the names of an architecture's tensors, the experts of a layer together."""
    count = next((config[key] for key in _EXPERTS if key in config), 0)
    if not isinstance(count, int) or not count:
        return row.names
    together: Rules = {
        f"blk.*.ffn_{kind}_exps": Each(tuple(f"layers.*.mlp.experts.{n}.{kind}" for n in range(count)))
        for kind in ("gate", "up", "down")
    }
    return {**together, **row.names}


def restated(model: Decoder, row: Architecture) -> Decoder:
    """Return a model of Hugging Face's form as one of GGUF's, in place: how it pairs channels, and its
    norms."""
    for module in model.modules():
        if isinstance(module, Attention) and isinstance(module.position, Rotary):
            module.position = dataclasses.replace(module.position, interleaved=row.interleaved)
    for path, module in list(model.named_modules()):
        if isinstance(module, OffsetRMSNorm):
            model.set_submodule(path, nn.RMSNorm(module.weight.shape[0], module.eps))
    return model


def published(
    row: Architecture, metadata: Mapping[str, object], names: frozenset[str], rope_freqs: list[float] | None
) -> dict[str, object]:
    """Return the config.json that metadata amount to; see `described`."""
    prefix = f"{row.kind}."
    stripped = {
        key.removeprefix(prefix): _decimal(v) for key, v in metadata.items() if key.startswith(prefix)
    }
    m = Config(stripped, f"GGUF {row.kind}")
    queries, width = m.count("attention.head_count"), m.count("embedding_length")
    dim = m.count("attention.key_length", width // queries or 1)
    m.must("attention.value_length", dim)
    usual: dict[str, object] = {
        "hidden_size": width,
        "num_attention_heads": queries,
        "num_key_value_heads": m.count("attention.head_count_kv", queries),
        "head_dim": dim,
        "intermediate_size": m.optional("feed_forward_length"),
        "num_hidden_layers": m.count("block_count"),
        "eps": m.number(m.either("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"), 1e-5),
        "max_position_embeddings": m.count("context_length"),
        "rope_theta": m.number("rope.freq_base", 10_000.0),
        "vocab_size": m.count("vocab_size") if "vocab_size" in m else _tokens(metadata),
    }
    spelled = {"eps": "rms_norm_eps", **row.spelled}
    config: dict[str, object] = {"model_type": row.model_types[0]}
    config |= {name: usual[key] for key in usual if (name := spelled.get(key, key)) is not None}
    config["tie_word_embeddings"] = "output.weight" not in names
    config |= row.says
    config |= {key: tensor in names for key, tensor in row.flags.items()}
    config |= {key: value for said, key in row.keys.items() if (value := m.get(said, None)) is not None}
    if "partial_rotary_factor" in config:
        config |= _turned(m, dim)
    elif "rope.dimension_count" not in row.more:
        m.must("rope.dimension_count", dim)
    config |= {"rope_scaling": scaling} if (scaling := _scaling(m, rope_freqs)) else {}
    config |= row.also(m, config, names)
    m.finish()
    return {key: value for key, value in config.items() if value is not None}


def _decimal(value: object) -> object:
    """Return the number that a file's float32 was written from: 1e-5 is stored as 9.999999747378752e-06."""
    if not isinstance(value, float) or not math.isfinite(value) or float(np.float32(value)) != value:
        return value
    return float(str(np.float32(value)))


def _decoder(c: Config) -> Decoder:
    model = family(c).build(c)
    if not isinstance(model, Decoder):
        raise ConfigError(f"{c.where}: model_type = {c.text('model_type')!r} is no decoder")
    return model


def _tokens(metadata: Mapping[str, object]) -> int:
    tokens = metadata.get("tokenizer.ggml.tokens")
    try:
        return len(tokens)  # type: ignore[arg-type]  # whatever a file may hold there
    except TypeError:
        raise ConfigError("GGUF metadata has neither vocab_size nor tokenizer.ggml.tokens") from None


def _turned(m: Config, dim: int) -> dict[str, object]:
    """Return how much of each head turns, where it is not all of it."""
    count = m.count("rope.dimension_count", dim)
    if count == dim:
        return {}
    share = count / dim
    return {"partial_rotary_factor": share if int(dim * share) == count else math.nextafter(share, 1.0)}


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
