"""Baichuan and Baichuan 2: Llama with q, k and v in one tensor; 13B has ALiBi, the second a normed head."""

from __future__ import annotations

from torch import nn

from ..bricks import ALiBi, NormedHead, Position, Rotary, slopes, unmoved
from ..config import Config
from ..context import Score
from ..models import Decoder
from ..tensors import Rules, Stacked
from . import llama

TENSORS: Rules = {
    "model.layers.*.self_attn.W_pack": Stacked(("layers.*.attn.q", "layers.*.attn.k", "layers.*.attn.v")),
    **llama.TENSORS,
}

# What the published files differ in, where nothing names it: 13B is 5120 wide and says model_max_length
# alone; only Baichuan 2 has this many tokens.
ALIBI_WIDTH, NORMED_VOCABULARY = 5120, 125_696


def build(c: Config) -> Decoder:
    """Compose the bricks that a Baichuan config.json describes.

    Its `position` ("rope" or "alibi") and `norm_head` count where it has them.
    """
    width, heads = llama.sizes(c)
    long = width == ALIBI_WIDTH or "max_position_embeddings" not in c
    kind = c.text("position", "alibi" if long else "rope")
    c.must("position", "rope", "alibi")
    position: Position = Rotary(heads.dim)
    score = Score()
    if kind == "alibi":
        position, score = unmoved, Score(bias=ALiBi(slopes(heads.queries)))

    def attention(make: llama.Make, index: int) -> nn.Module:
        return make(position=position, score=score)

    model = llama.build(c, attention=attention)
    if c.flag("norm_head", c.count("vocab_size") == NORMED_VOCABULARY):
        c.must("tie_word_embeddings", False)
        model.head = NormedHead(width, c.count("vocab_size"))
    return model
