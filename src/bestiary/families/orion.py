"""Orion: Llama with LayerNorm, weight and bias, in place of every RMSNorm; its epsilon is `rms_norm_eps`."""

from __future__ import annotations

from torch import nn

from ..config import Config
from ..models import Decoder
from . import llama

TENSORS = llama.TENSORS


def build(c: Config) -> Decoder:
    """Compose the bricks that an Orion config.json describes."""
    return llama.build(c, norms=nn.LayerNorm)
