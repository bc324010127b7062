"""What GGUF's metadata say of a model, read off its bricks: whatever its config.json calls it, this is
computed.

Keys are those of ggml/docs/gguf.md without the architecture before them. An architecture takes those it has;
that nothing was lost is proven by reading them back (likeness.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from ..bricks import (
    ALiBi,
    Attention,
    ClippedAttention,
    Interpolated,
    MoE,
    Parallel,
    Rotary,
    Scale,
    ScaledPreNorm,
    SharedMoE,
    SharedParallel,
    Yarn,
)
from ..errors import RequestError
from ..models import Decoder


def facts(model: Decoder, *, context: int, config: Mapping[str, object]) -> dict[str, object]:
    """Return every key that the bricks of a model have a value for.

    context: tokens that it was published for. config: its config.json, for what its bricks do not have: the
    width of dense feed-forward layers where all are mixtures. Raises RequestError for a model whose layers
    are no attention and feed-forward.
    """
    attn, mlps = _attention(model), [_part(block, "mlp") for block in model.layers]
    found: dict[str, object] = {
        "context_length": context,
        "embedding_length": attn.q.in_features,
        "block_count": len(model.layers),
        "vocab_size": _vocabulary(model),
        "attention.head_count": attn.q.out_features // attn.head_dim,
        "attention.head_count_kv": attn.slot.heads,
        "attention.key_length": attn.head_dim,
        "attention.value_length": attn.head_dim,
    }
    found |= dict(_norms(model)) | dict(_positions(attn)) | dict(_scores(model, attn))
    found |= dict(_mixtures(mlps, config)) | dict(_scales(model))
    return {key: value for key, value in found.items() if value is not None}


def _attention(model: Decoder) -> Attention:
    first = model.layers[0] if len(model.layers) else None
    attn = getattr(first, "attn", None)
    if not isinstance(attn, Attention) or not hasattr(first, "mlp"):
        raise RequestError(f"layers of type {type(first).__name__} have no form in GGUF")
    return attn


def _part(block: nn.Module, name: str) -> Any:
    return getattr(block, name)


def _vocabulary(model: Decoder) -> int:
    parts: Iterator[Any] = model.embed.modules()
    return next(int(part.num_embeddings) for part in parts if hasattr(part, "num_embeddings"))


def _norms(model: Decoder) -> Iterator[tuple[str, object]]:
    norm = model.layers[0].attn_norm
    key = (
        "attention.layer_norm_epsilon"
        if isinstance(norm, nn.LayerNorm)
        else "attention.layer_norm_rms_epsilon"
    )
    yield key, getattr(norm, "eps", None)


def _positions(attn: Attention) -> Iterator[tuple[str, object]]:
    position = attn.position
    if not isinstance(position, Rotary):
        return
    yield "rope.dimension_count", position.dim
    yield "rope.freq_base", float(position.base)
    turns = position.frequencies
    if isinstance(turns, Interpolated):
        yield from (("rope.scaling.type", "linear"), ("rope.scaling.factor", float(turns.factor)))
    if isinstance(turns, Yarn):
        yield from (("rope.scaling.type", "yarn"), ("rope.scaling.factor", float(turns.factor)))
        yield "rope.scaling.original_context_length", turns.trained


def _scores(model: Decoder, attn: Attention) -> Iterator[tuple[str, object]]:
    windows = [_part(block, "attn").score.window for block in model.layers]
    yield "attention.sliding_window", max((window for window in windows if window is not None), default=None)
    if attn.score.scale is not None:
        yield "attention.scale", float(attn.score.scale)
    if isinstance(attn.score.bias, ALiBi):
        # The first slope is 2 ** (-steepest / n), n the largest power of two that is no more than the heads.
        whole = 2 ** math.floor(math.log2(attn.q.out_features // attn.head_dim))
        yield "attention.max_alibi_bias", round(-math.log2(attn.score.bias.slopes[0]) * whole, 6)
    if isinstance(attn, ClippedAttention):
        yield "attention.clamp_kqv", float(attn.limit)


def _mixtures(mlps: list[Any], config: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    dense = [mlp.up.out_features for mlp in mlps if not isinstance(mlp, MoE)]
    mixed = [mlp for mlp in mlps if isinstance(mlp, MoE)]
    if not mixed:
        yield "feed_forward_length", dense[0]
        return
    first, said = mixed[0], config.get("intermediate_size")
    expert: Any = first.experts[0]
    yield (
        "feed_forward_length",
        dense[0] if dense else said if isinstance(said, int) else expert.up.out_features,
    )
    yield "expert_count", len(first.experts)
    yield "expert_used_count", _chosen(first)
    yield "expert_feed_forward_length", expert.up.out_features
    yield "leading_dense_block_count", next(i for i, mlp in enumerate(mlps) if isinstance(mlp, MoE))
    if isinstance(first, SharedMoE):
        shared: Any = first.shared
        yield "expert_shared_feed_forward_length", shared.up.out_features
        yield "expert_shared_count", shared.up.out_features // expert.up.out_features or None


def _chosen(mixture: MoE) -> object:
    """Return how many experts a token has: what its routing rule was made with."""
    cells = getattr(mixture.routing, "__closure__", None) or ()
    return next((cell.cell_contents for cell in cells if isinstance(cell.cell_contents, int)), 1)


def _scales(model: Decoder) -> Iterator[tuple[str, object]]:
    block = model.layers[0]
    yield "use_parallel_residual", isinstance(block, Parallel | SharedParallel)
    if isinstance(block, ScaledPreNorm):
        yield "residual_scale", float(block.scale)
    for key, part in (("embedding_scale", model.embed), ("logit_scale", model.head)):
        factor = next((each.factor for each in part.modules() if type(each) is Scale), None)
        # Granite's logits are divided by it, and Command R's multiplied.
        inverse = key == "logit_scale" and isinstance(block, ScaledPreNorm)
        yield key, None if factor is None else float(1 / factor if inverse else factor)
