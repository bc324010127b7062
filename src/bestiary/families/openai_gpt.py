"""GPT: learned positions, a norm after each half of a block, and none after the last."""

from __future__ import annotations

from functools import partial

from torch import nn

from ..bricks import MLP, Attention, Heads, Learned, PostNorm
from ..config import ACTIVATIONS, MOST_LAYERS, Config
from ..models import Decoder
from ..tensors import DROP, Rules, Stacked, Turned
from .ends import ends

TENSORS: Rules = {
    "[transformer.]tokens_embed": "embed",
    "[transformer.]positions_embed": "positions.table",
    "[transformer.]h.*.attn.c_attn": Turned(
        Stacked(("layers.*.attn.q", "layers.*.attn.k", "layers.*.attn.v"))
    ),
    "[transformer.]h.*.attn.c_proj": Turned("layers.*.attn.o"),
    "[transformer.]h.*.attn": DROP,  # the causal mask
    "[transformer.]h.*.ln_1": "layers.*.attn_norm",
    "[transformer.]h.*.mlp.c_fc": Turned("layers.*.mlp.up"),
    "[transformer.]h.*.mlp.c_proj": Turned("layers.*.mlp.down"),
    "[transformer.]h.*.ln_2": "layers.*.mlp_norm",
    "lm_head": "head",
}


def build(c: Config) -> Decoder:
    """Compose the bricks that a GPT config.json describes."""
    width = c.count("n_embd")
    act = c.activation("afn", "gelu")
    if c.text("afn", "gelu") == "gelu":  # here the name of the tanh form (finetune-transformer-lm, train.py)
        act = ACTIVATIONS["gelu_new"]
    c.must("n_special", 0)  # rows of the embedding that finetuned classifiers add
    c.must("predict_special_tokens", True, False)  # of which there are none
    norm = partial(nn.LayerNorm, width, c.number("layer_norm_epsilon", 1e-5))
    attn = partial(Attention, width, Heads.of(width, c.count("n_head", most=width)), bias=True, out_bias=True)
    mlp = partial(MLP, width, 4 * width, act)
    layers = [PostNorm(norm(), attn(), norm(), mlp()) for _ in range(c.count("n_layer", most=MOST_LAYERS))]
    embed, head = ends(c, width, tied=True)
    positions = Learned(c.count("n_positions", 512), width)
    return Decoder(embed, layers, nn.Identity(), head, positions=positions)
