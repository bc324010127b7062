"""OLMo: Llama with norms that have no weights, and clamped queries, keys and values."""

from __future__ import annotations

from functools import partial

from torch import nn

from ..bricks import Attention, ClippedAttention
from ..config import Config
from ..models import Decoder
from . import llama

TENSORS = llama.TENSORS


def build(c: Config) -> Decoder:
    """Compose the bricks that an OLMo config.json describes."""

    def norm(width: int, eps: float) -> nn.Module:
        return nn.LayerNorm(width, 1e-5, elementwise_affine=False)  # no key of the config says either

    limit = c.number("clip_qkv") if "clip_qkv" in c else None
    kind = Attention if limit is None else partial(ClippedAttention, limit=limit)
    return llama.build(c, kind=kind, norms=norm)
