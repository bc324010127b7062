"""MPNet: a RoBERTa without segments whose scores know distances as T5's do, arXiv 2004.09297."""

from __future__ import annotations

from torch import nn

from ..bricks import Buckets, Learned
from ..config import Config
from ..context import Score
from ..models import Encoder
from ..tensors import Rules
from .encoders import blocks, norm
from .roberta import HEADS, heads

__all__ = ["HEADS", "TENSORS", "build"]

PAD = 1  # whatever pad_token_id says: modeling_mpnet.py
FARTHEST = 128
BODY: Rules = {
    "embeddings.word_embeddings": "embed",
    "embeddings.position_embeddings": "positions.table",
    "embeddings.LayerNorm": "positions.norm",
    "encoder.relative_attention_bias": "bias.table",
    **{f"encoder.layer.*.attention.attn.{x}": f"layers.*.attn.{x}" for x in "qkvo"},
    "encoder.layer.*.attention.LayerNorm": "layers.*.attn_norm",
    "encoder.layer.*.intermediate.dense": "layers.*.mlp.up",
    "encoder.layer.*.output.dense": "layers.*.mlp.down",
    "encoder.layer.*.output.LayerNorm": "layers.*.mlp_norm",
    "pooler.dense": "pooler.0",
}


def TENSORS(c: Config) -> Rules:  # noqa: N802  # a table in most families
    """Name the tensors."""
    return {**{f"[mpnet.]{path}": ours for path, ours in BODY.items()}, **heads(c, "mpnet")}


def build(c: Config) -> Encoder:
    """Compose the bricks that an MPNet config.json describes, without heads."""
    c.must("relative_attention_num_buckets", 32)
    width = c.count("hidden_size")
    bias = Buckets(c.count("num_attention_heads", most=width), ranges=32, farthest=FARTHEST)
    rows = c.count("max_position_embeddings", 512, least=PAD + 2) - PAD - 1
    positions = Learned(rows, width, offset=PAD + 1, norm=norm(c, width))
    layers = blocks(c, Score(causal=False, bias=bias))
    return Encoder(nn.Embedding(c.count("vocab_size"), width), layers, positions=positions, bias=bias)
