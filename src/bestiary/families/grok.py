"""Grok-1: mixtures of experts in Sandwich blocks, by the names of a PyTorch port or as xAI's own ckpt-0."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import nn

from ..bricks import Attention, GatedMLP, Heads, MoE, RoundedScale, Sandwich, top_of_softmax
from ..config import ACTIVATIONS, MOST_LAYERS, Config
from ..context import Score
from ..models import Decoder
from ..tensors import Each, Layout, Rules, Turned
from .ends import ends
from .rotary import rotary

_PORT: Rules = {
    "model.embed_tokens": "embed.0",
    "model.layers.*.pre_attn_norm:scale": "layers.*.attn_norm:weight",
    "model.layers.*.attn.q_proj": "layers.*.attn.q",
    "model.layers.*.attn.k_proj": "layers.*.attn.k",
    "model.layers.*.attn.v_proj": "layers.*.attn.v",
    "model.layers.*.attn.o_proj": "layers.*.attn.o",
    "model.layers.*.post_attn_norm:scale": "layers.*.attn_out_norm:weight",
    "model.layers.*.pre_moe_norm:scale": "layers.*.mlp_norm:weight",
    "model.layers.*.moe_block.gate": "layers.*.mlp.route",
    "model.layers.*.moe_block.experts.*.linear": "layers.*.mlp.experts.*.gate",
    "model.layers.*.moe_block.experts.*.linear_v": "layers.*.mlp.experts.*.up",
    "model.layers.*.moe_block.experts.*.linear_1": "layers.*.mlp.experts.*.down",
    "model.layers.*.post_moe_norm:scale": "layers.*.mlp_out_norm:weight",
    "model.norm:scale": "norm:weight",
    "lm_head": "head.0",
}

# What xAI released (run.py of xai-org/grok-1), for a download of ckpt-0, which has no config.json.
RELEASED: Mapping[str, object] = {
    "model_type": "grok-1",
    "vocab_size": 131072,
    "hidden_size": 6144,
    "intermediate_size": 32768,
    "num_hidden_layers": 64,
    "num_attention_heads": 48,
    "num_key_value_heads": 8,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "attn_output_multiplier": 0.08838834764831845,
    "embedding_multiplier_scale": 78.38367176906169,
    "output_multiplier_scale": 0.5773502691896257,
    "max_position_embeddings": 8192,
}


def TENSORS(c: Config) -> Rules:  # noqa: N802  # a table in most families
    """Return the names of the port, and the files of ckpt-0, which are numbered.

    Files follow jax.tree_util: sorted by name, so that layer 10 comes before layer 2.
    """
    leaves: list[str | Layout] = ["embed.0:weight", "norm:weight"]
    for index in sorted(range(c.count("num_hidden_layers", most=MOST_LAYERS)), key=str):
        leaves += _leaves(f"layers.{index}", c.count("num_experts"))
    return {**_PORT, **{f":tensor{number:05d}_000": leaf for number, leaf in enumerate(leaves)}}


def _leaves(layer: str, experts: int) -> list[str | Layout]:
    """Return one layer's: the experts of a kind together, and matrices with their input channels first."""
    numbered = [f"{layer}.mlp.experts.{number}" for number in range(experts)]
    kinds = [tuple(f"{expert}.{kind}:weight" for expert in numbered) for kind in ("gate", "down", "up")]
    attn = [f"{layer}.attn.{name}:weight" for name in ("k", "o", "q", "v")]
    norms = [f"{layer}.{name}:weight" for name in ("attn_norm", "attn_out_norm", "mlp_norm", "mlp_out_norm")]
    return [
        *(Turned(Each(kind)) for kind in kinds),
        *map(Turned, attn),
        *norms,
        Turned(f"{layer}.mlp.route:weight"),
    ]


def build(c: Config) -> Decoder:
    """Compose the bricks that a Grok-1 config.json describes. Its gelu is JAX's, which is tanh's."""
    width = c.count("hidden_size")
    heads = Heads.of(width, c.count("num_attention_heads", most=width), c.count("num_key_value_heads"))
    score = Score(scale=c.number("attn_output_multiplier"), softcap=c.number("max_attn_value", 30.0))
    attn = partial(Attention, width, heads, score=score, position=rotary(c, heads.dim))
    norm = partial(nn.RMSNorm, width, c.number("rms_norm_eps", 1e-5))
    expert = partial(GatedMLP, width, c.count("intermediate_size"), ACTIVATIONS["gelu_pytorch_tanh"])
    experts = c.count("num_experts")
    routing = top_of_softmax(c.count("num_experts_per_tok", most=experts))

    def block() -> Sandwich:
        mixture = MoE(width, (expert() for _ in range(experts)), routing)
        return Sandwich(norm(), attn(), norm(), norm(), mixture, norm())

    layers = [block() for _ in range(c.count("num_hidden_layers", most=MOST_LAYERS))]
    embed, head = ends(c, width, tied=True)
    multiplied = nn.Sequential(embed, RoundedScale(c.number("embedding_multiplier_scale")))
    logits = nn.Sequential(head, RoundedScale(c.number("output_multiplier_scale")))
    return Decoder(multiplied, layers, norm(), logits)
