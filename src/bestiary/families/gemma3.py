"""Gemma 3's text decoder: Gemma 2 with normed queries and keys, and two bases for its positions."""

from __future__ import annotations

from torch import nn

from ..bricks import OffsetRMSNorm, Rotary
from ..config import Config
from ..models import Decoder
from ..tensors import Rules
from . import gemma, gemma2, llama
from .rotary import frequencies, rotary
from .windows import FULL, SLIDING

TENSORS: Rules = {
    **gemma2.TENSORS,
    "model.layers.*.self_attn.q_norm": "layers.*.attn.q_norm",
    "model.layers.*.self_attn.k_norm": "layers.*.attn.k_norm",
    "model.layers.*.self_attn.query_norm": "layers.*.attn.q_norm",
    "model.layers.*.self_attn.key_norm": "layers.*.attn.k_norm",
}


def build(c: Config) -> Decoder:
    """Compose the bricks that a gemma3_text config.json describes."""
    _, heads = llama.sizes(c)
    seen = gemma2.scores(c, period=c.count("sliding_window_pattern", 6), softcap=None)
    far, near = _positions(c, heads.dim)
    eps = c.number("rms_norm_eps", 1e-6)

    def attention(make: llama.Make, index: int) -> nn.Module:
        q_norm, k_norm = OffsetRMSNorm(heads.dim, eps), OffsetRMSNorm(heads.dim, eps)
        position = far if seen[index].window is None else near
        return make(score=seen[index], position=position, q_norm=q_norm, k_norm=k_norm)

    model = gemma.build(c, attention=attention, block=gemma2.sandwich(c))
    return gemma2.capped(c, model, softcap=None)


def _positions(c: Config, dim: int) -> tuple[Rotary, Rotary]:
    """Return the positions of the layers that see everything, and of those with a window."""
    if (both := c.section("rope_parameters")) is None:  # as published, before transformers 5
        return rotary(c, dim, base=1e6), Rotary(dim, c.number("rope_local_base_freq", 1e4))
    said = [(both.section(kind) or Config({}), base) for kind, base in ((FULL, 1e6), (SLIDING, 1e4))]
    turning = [Rotary(dim, s.number("rope_theta", base), frequencies=frequencies(c, s)) for s, base in said]
    return turning[0], turning[1]
