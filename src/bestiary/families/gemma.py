"""Gemma: Llama with norms around one, wide heads, tanh's gelu and scaled embeddings.

By Hugging Face's names, and those of the authors' own gemma_pytorch.ckpt.
"""

from __future__ import annotations

from torch import nn

from ..bricks import OffsetRMSNorm, PreNorm, RoundedScale
from ..config import ACTIVATIONS, Config
from ..models import Decoder
from ..tensors import DROP, Rules, Stacked
from . import llama

TENSORS: Rules = {
    **llama.TENSORS,
    "model.embed_tokens": "embed.0",
    "embedder": "embed.0",
    "model.layers.*.self_attn.qkv_proj": Stacked(("layers.*.attn.q", "layers.*.attn.k", "layers.*.attn.v")),
    ":freqs_cis": DROP,
    ":local_freqs_cis": DROP,
    ":global_freqs_cis": DROP,
}


def build(c: Config, *, attention: llama.Layer = llama.usual, block: llama.Make = PreNorm) -> Decoder:
    """Compose the bricks that a Gemma config.json describes. attention, block: as llama.build's."""
    c.must("use_bidirectional_attention", False)
    for key in ("hidden_act", "hidden_activation"):
        c.must(key, "gelu_pytorch_tanh", "gelu")  # the first published files say gelu and mean tanh's
    act = ACTIVATIONS["gelu_pytorch_tanh"]

    def feedforward(make: llama.Make, index: int) -> nn.Module:
        return make(act=act)

    model = llama.build(c, attention=attention, feedforward=feedforward, block=block, norms=OffsetRMSNorm)
    if c.flag("tie_word_embeddings", True):
        model.head.weight = model.embed.weight
    model.embed = nn.Sequential(model.embed, RoundedScale(c.count("hidden_size") ** 0.5))
    return model
