"""Gemma 2: Gemma in Sandwich blocks, with capped scores and logits, and windows in every second layer."""

from __future__ import annotations

from functools import partial

from torch import nn

from ..bricks import Cap, OffsetRMSNorm, Sandwich
from ..config import MOST_LAYERS, Config
from ..context import Score
from ..models import Decoder
from ..tensors import Rules
from . import gemma, llama
from .windows import windows

TENSORS: Rules = {
    **gemma.TENSORS,
    "model.layers.*.post_attention_layernorm": "layers.*.attn_out_norm",
    "model.layers.*.pre_feedforward_layernorm": "layers.*.mlp_norm",
    "model.layers.*.post_feedforward_layernorm": "layers.*.mlp_out_norm",
    "lm_head": "head.0",
}


def build(c: Config) -> Decoder:
    """Compose the bricks that a Gemma 2 config.json describes."""
    seen = scores(c, period=2, softcap=50.0)

    def attention(make: llama.Make, index: int) -> nn.Module:
        return make(score=seen[index])

    return capped(c, gemma.build(c, attention=attention, block=sandwich(c)), softcap=30.0)


def scores(c: Config, *, period: int, softcap: float | None) -> list[Score]:
    """Return what each layer asks of its scores: every period-th sees everything, the others a window.

    softcap: what an absent attn_logit_softcapping means; null is none.
    """
    count = c.count("num_hidden_layers", most=MOST_LAYERS)
    c.count(c.either("sliding_window", "sliding_window_size"))  # the first files have both
    scale, cap = c.number("query_pre_attn_scalar", 256) ** -0.5, _limit(c, "attn_logit_softcapping", softcap)
    seen = windows(c, count, slides=lambda index: (index + 1) % period > 0)
    return [Score(scale=scale, softcap=cap, window=window) for window in seen]


def sandwich(c: Config) -> llama.Make:
    """Return what makes a block of its layers and the norms before them, as llama.build's `block`."""
    norm = partial(OffsetRMSNorm, c.count("hidden_size"), c.number("rms_norm_eps", 1e-6))
    return lambda attn_norm, attn, mlp_norm, mlp: Sandwich(attn_norm, attn, norm(), mlp_norm, mlp, norm())


def capped(c: Config, model: Decoder, *, softcap: float | None) -> Decoder:
    """Return a model whose logits stay within final_logit_softcapping; softcap: what its absence means."""
    cap = _limit(c, "final_logit_softcapping", softcap)
    model.head = nn.Sequential(model.head, *([] if cap is None else [Cap(cap)]))
    return model


def _limit(c: Config, key: str, usual: float | None) -> float | None:
    return c.number(key, usual) if c.raw.get(key, usual) is not None else None
