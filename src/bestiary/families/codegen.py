"""CodeGen and MOSS: GPT-J, its projections one matrix, cut for four TPU cores; MOSS also in 4 and 8 bits."""

from __future__ import annotations

from functools import partial

from ..config import Config
from ..models import Decoder
from ..quant.gptq import GPTQLinear
from ..swap import swap
from ..tensors import Rules, Stacked
from . import gptj

TENSORS: Rules = {
    # Each core in turn: its heads' queries, then their values, then their keys.
    "transformer.h.*.attn.qkv_proj": Stacked(
        ("layers.*.attn.q", "layers.*.attn.v", "layers.*.attn.k"), groups=4
    ),
    **gptj.TENSORS,
}


def build(c: Config) -> Decoder:
    """Compose the bricks that a CodeGen or MOSS config.json describes."""
    c.must("wbits", 32, 4, 8)
    model, bits = gptj.build(c), c.count("wbits", 32)
    group = None if c.get("groupsize", 128) == -1 else c.count("groupsize", 128)
    if bits < 32:  # every Linear but the head (MOSS, models/quantization.py)
        packed = partial(GPTQLinear.of, bits=bits, group=group)
        swap(model, r"layers\.\d+\.(attn\.[qkvo]|mlp\.(up|down))", packed)
    return model
