"""PaLM as two open implementations publish it: state dicts of PaLM-rlhf-pytorch and of PaLM-pytorch.

Neither has a config.json: it holds the arguments of the class.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import nn

from ..bricks import Attention, GatedMLP, Heads, Position, Rotary, SharedParallel, XPos
from ..config import MOST_LAYERS, Config
from ..models import Decoder
from ..tensors import DROP, Rules, Stacked


def TENSORS(c: Config) -> Rules:  # noqa: N802  # a table in most families
    """Return the names of both: modules by name, and places in a Sequential whose first is the embedding."""
    depth = c.count("depth", most=MOST_LAYERS)
    places = [_block(f"{index + 1}.fn", "ff_out.1", f"layers.{index}") for index in range(depth)]
    named = _ends("token_emb", "norm", "to_logits"), _block("layers.*.fn", "ff_out.2", "layers.*")
    counted = _ends("0", f"{depth + 1}", f"{depth + 2}"), *places
    return {theirs: ours for rules in (*named, *counted) for theirs, ours in rules.items()}


def _ends(embed: str, norm: str, head: str) -> Rules:
    return {embed: "embed", f"{norm}:gamma": "norm:weight", f"{norm}:beta": DROP, head: "head"}


def _block(theirs: str, down: str, ours: str) -> Rules:
    fused = ("attn.q", "attn.k", "attn.v", "mlp.up", "mlp.gate")
    return {
        f"{theirs}.norm:gamma": f"{ours}.attn_norm:weight",
        f"{theirs}.norm:beta": DROP,  # zeros that were never trained
        f"{theirs}.rotary_emb": DROP,
        f"{theirs}.fused_attn_ff_proj": Stacked(tuple(f"{ours}.{part}" for part in fused)),
        f"{theirs}.attn_out": f"{ours}.attn.o",
        f"{theirs}.{down}": f"{ours}.mlp.down",
    }


def build(c: Config) -> Decoder:
    """Compose the bricks that a PaLM's arguments describe."""
    width, vocab = c.count("dim"), c.count("num_tokens")
    c.must("qk_rmsnorm", False)
    heads = Heads(c.count("heads", 8), 1, c.count("dim_head", 64))
    position: Position = Rotary(heads.dim)
    if c.flag("use_xpos", True):
        position = XPos(Rotary(heads.dim), c.number("rotary_xpos_scale_base", 512))
    norm = partial(nn.LayerNorm, width, bias=False)
    attn = partial(Attention, width, heads, position=position)
    mlp = partial(GatedMLP, width, width * c.count("ff_mult", 4), F.silu)
    layers = [SharedParallel(norm(), attn(), mlp()) for _ in range(c.count("depth", most=MOST_LAYERS))]
    embed, head = nn.Embedding(vocab, width), nn.Linear(width, vocab, bias=False)
    head.weight = embed.weight
    return Decoder(embed, layers, norm(), head)
