"""BlueLM: Llama with a LayerNorm on the embedded tokens."""

from __future__ import annotations

from torch import nn

from ..bricks import Rotary
from ..config import Config
from ..models import Decoder
from ..tensors import Rules
from . import llama


def TENSORS(c: Config) -> Rules:  # noqa: N802  # a table in most families
    """Return the names of tensors: the embedding is the first of two modules where a norm follows it."""
    if not _is_normed(c):
        return llama.TENSORS
    return {**llama.TENSORS, "model.embed_tokens": "embed.0", "model.embed_layer_norm": "embed.1"}


def build(c: Config) -> Decoder:
    """Compose the bricks that a BlueLM config.json describes."""
    width, heads = llama.sizes(c)

    def attention(make: llama.Make, index: int) -> nn.Module:
        # The authors' code for 2K turns by a base of 10,000 whatever rope_theta says; that for 32K reads it.
        return make() if "rope_scaling" in c else make(position=Rotary(heads.dim))

    model = llama.build(c, attention=attention)
    if _is_normed(c):
        model.embed = nn.Sequential(model.embed, nn.LayerNorm(width, c.number("rms_norm_eps", 1e-6)))
    return model


def _is_normed(c: Config) -> bool:
    return c.flag("use_stable_embedding", False)
