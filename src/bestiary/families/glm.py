"""GLM-4-9B as transformers writes it: Llama that rotates half of each head; GLM-4-0414: in a sandwich."""

from __future__ import annotations

from functools import partial

from torch import nn

from ..bricks import PreNorm, Sandwich
from ..config import Config
from ..models import Decoder
from ..tensors import Rules, Stacked
from . import llama

TENSORS: Rules = {
    "model.layers.*.mlp.gate_up_proj": Stacked(("layers.*.mlp.gate", "layers.*.mlp.up")),
    "model.layers.*.post_self_attn_layernorm": "layers.*.attn_out_norm",
    "model.layers.*.post_mlp_layernorm": "layers.*.mlp_out_norm",
    **llama.TENSORS,
}


def build(c: Config) -> Decoder:
    """Compose the bricks that a GLM-4 config.json describes: type glm, or glm4 with norms all around."""
    norm = partial(nn.RMSNorm, c.count("hidden_size"), c.number("rms_norm_eps"))

    def sandwich(attn_norm: nn.Module, attn: nn.Module, mlp_norm: nn.Module, mlp: nn.Module) -> nn.Module:
        return Sandwich(attn_norm, attn, norm(), mlp_norm, mlp, norm())

    def attention(make: llama.Make, index: int) -> nn.Module:
        return make(out_bias=False)

    block = sandwich if c.text("model_type") == "glm4" else PreNorm
    return llama.build(c, interleaved=True, attention=attention, block=block)
