"""InternLM, the first generation: Llama with biases in all of its attention (7B) and late rotation.

Beyond the trained length the base of the rotary positions grows with the text, and every key of the cache is
turned by the newest base.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from ..bricks import DynamicNTK, Met, Position, Rotary, unmoved
from ..config import Config
from ..context import Score
from ..models import Decoder
from . import llama

TENSORS = llama.TENSORS


def build(c: Config) -> Decoder:
    """Compose the bricks that an InternLM config.json describes."""
    _, heads = llama.sizes(c)
    bias, section = c.flag("bias", True), c.section("rotary") or Config({})
    rotary = partial(Rotary, heads.dim, section.number("base", 10_000.0))
    ntk = DynamicNTK(section.number("scaling_factor", 1.0), c.count("max_position_embeddings", 2048))
    # Files without the key are of the first weeks; the code that reads them today takes them for dynamic.
    section.must("type", "dynamic", "origin")
    position: Position = rotary()
    score = Score()
    if section.text("type", "dynamic") == "dynamic":
        position, score = unmoved, Score(meeting=Met(rotary(frequencies=ntk)))

    def attention(make: llama.Make, index: int) -> nn.Module:
        return make(position=position, score=score, bias=bias, out_bias=bias)

    return llama.build(c, attention=attention)
