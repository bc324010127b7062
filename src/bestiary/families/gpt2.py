"""GPT-2, and Cerebras-GPT: learned positions, and matrices stored input channels first."""

from __future__ import annotations

from functools import partial

from torch import nn

from ..bricks import MLP, Attention, Heads, Learned, PreNorm
from ..config import MOST_LAYERS, Config
from ..models import Decoder
from ..tensors import DROP, Rules, Stacked, Turned
from .ends import ends

TENSORS: Rules = {
    "[transformer.]wte": "embed",
    "[transformer.]wpe": "positions.table",
    "[transformer.]h.*.ln_1": "layers.*.attn_norm",
    "[transformer.]h.*.attn.c_attn": Turned(
        Stacked(("layers.*.attn.q", "layers.*.attn.k", "layers.*.attn.v"))
    ),
    "[transformer.]h.*.attn.c_proj": Turned("layers.*.attn.o"),
    "[transformer.]h.*.attn": DROP,  # the causal mask of old files
    "[transformer.]h.*.ln_2": "layers.*.mlp_norm",
    "[transformer.]h.*.mlp.c_fc": Turned("layers.*.mlp.up"),
    "[transformer.]h.*.mlp.c_proj": Turned("layers.*.mlp.down"),
    "[transformer.]ln_f": "norm",
    "lm_head": "head",
}


def build(c: Config) -> Decoder:
    """Compose the bricks that a GPT-2 config.json describes."""
    width = c.count("n_embd")
    act = c.activation("activation_function", "gelu_new")
    for key, computed in (("scale_attn_weights", True), ("scale_attn_by_inverse_layer_idx", False)):
        c.must(key, computed)
    c.must("add_cross_attention", False)
    c.must("reorder_and_upcast_attn", False, True)  # a precision of half-precision runs
    norm = partial(nn.LayerNorm, width, c.number("layer_norm_epsilon", 1e-5))
    attn = partial(Attention, width, Heads.of(width, c.count("n_head", most=width)), bias=True, out_bias=True)
    mlp = partial(MLP, width, c.count("n_inner", 4 * width), act)
    layers = [PreNorm(norm(), attn(), norm(), mlp()) for _ in range(c.count("n_layer", most=MOST_LAYERS))]
    embed, head = ends(c, width, tied=True)
    return Decoder(embed, layers, norm(), head, positions=Learned(c.count("n_positions", 1024), width))
