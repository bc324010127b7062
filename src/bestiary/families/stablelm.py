"""StableLM 3B, Stable LM 2 and its 12B: LayerNorm, rotary on a quarter of each head, normed heads in 12B."""

from __future__ import annotations

from functools import partial

from torch import nn

from ..bricks import Attention, GatedMLP, HeadNorm, PreNorm, SharedParallel
from ..config import MOST_LAYERS, Config
from ..models import Decoder
from ..tensors import Rules
from . import llama
from .ends import ends
from .rotary import rotary


def TENSORS(c: Config) -> Rules:  # noqa: N802  # a table in most families
    """Return the names: Llama's, and a norm of its own for each head."""
    _, heads = llama.sizes(c)
    path = "model.layers.*.self_attn"
    return {
        **llama.TENSORS,
        tuple(f"{path}.q_layernorm.norms.{n}" for n in range(heads.queries)): "layers.*.attn.q_norm",
        tuple(f"{path}.k_layernorm.norms.{n}" for n in range(heads.kv)): "layers.*.attn.k_norm",
    }


def build(c: Config) -> Decoder:
    """Compose the bricks that a StableLM config.json describes."""
    width, heads = llama.sizes(c)
    eps, normed = c.number("layer_norm_eps", 1e-5), c.flag("qk_layernorm", False)
    norm = partial(nn.LayerNorm, width, eps)
    mlp = partial(GatedMLP, width, c.count("intermediate_size"), c.activation("hidden_act", "silu"))
    bias, position = c.flag("use_qkv_bias", False), rotary(c, heads.dim, share=0.25)

    def head_norm(count: int) -> nn.Module:
        return HeadNorm(count, heads.dim, eps) if normed else nn.Identity()

    def attn() -> Attention:
        q_norm, k_norm = head_norm(heads.queries), head_norm(heads.kv)
        return Attention(width, heads, position=position, bias=bias, q_norm=q_norm, k_norm=k_norm)

    parallel = c.flag("use_parallel_residual", False)
    layers = [
        SharedParallel(norm(), attn(), mlp()) if parallel else PreNorm(norm(), attn(), norm(), mlp())
        for _ in range(c.count("num_hidden_layers", most=MOST_LAYERS))
    ]
    embed, head = ends(c, width, tied=False)
    return Decoder(embed, layers, norm(), head)
