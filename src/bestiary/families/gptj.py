"""GPT-J and GPT-JT: one norm for both halves of a block, rotary positions on a part of each head."""

from __future__ import annotations

from functools import partial

from torch import nn

from ..bricks import MLP, Attention, Heads, Rotary, SharedParallel
from ..config import MOST_LAYERS, Config
from ..models import Decoder
from ..tensors import DROP, Rules
from .ends import ends

TENSORS: Rules = {
    "transformer.wte": "embed",
    "transformer.h.*.ln_1": "layers.*.attn_norm",
    "transformer.h.*.attn.q_proj": "layers.*.attn.q",
    "transformer.h.*.attn.k_proj": "layers.*.attn.k",
    "transformer.h.*.attn.v_proj": "layers.*.attn.v",
    "transformer.h.*.attn.out_proj": "layers.*.attn.o",
    "transformer.h.*.attn": DROP,  # the causal mask of old files
    "transformer.h.*.mlp.fc_in": "layers.*.mlp.up",
    "transformer.h.*.mlp.fc_out": "layers.*.mlp.down",
    "transformer.ln_f": "norm",
    "lm_head": "head",
}


def build(c: Config) -> Decoder:
    """Compose the bricks that a GPT-J config.json describes."""
    width = c.count("n_embd")
    c.must("rotary", True)
    c.must("scale_attn_weights", True)
    heads = Heads.of(width, c.count("n_head", most=width))
    position = Rotary(c.count("rotary_dim", 64, most=heads.dim), interleaved=True)
    norm = partial(nn.LayerNorm, width, c.number("layer_norm_epsilon", 1e-5))
    attn = partial(Attention, width, heads, position=position)
    act = c.activation("activation_function", "gelu_new")
    mlp = partial(MLP, width, c.count("n_inner", 4 * width), act)
    layers = [SharedParallel(norm(), attn(), mlp()) for _ in range(c.count("n_layer", most=MOST_LAYERS))]
    embed, head = ends(c, width, tied=False, bias=True)
    return Decoder(embed, layers, norm(), head)
