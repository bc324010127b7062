"""Qwen1.5-MoE and Qwen2-MoE: Qwen2 with mixtures, and in each one expert that all tokens have."""

from __future__ import annotations

from torch import nn

from ..bricks import GatedSharedMoE
from ..config import MOST_LAYERS, Config
from ..models import Decoder
from ..tensors import Rules
from . import experts, llama, qwen2

TENSORS: Rules = {
    **qwen2.TENSORS,
    **experts.TENSORS,
    f"{experts.MLP}.shared_expert.gate_proj": "layers.*.mlp.shared.gate",
    f"{experts.MLP}.shared_expert.up_proj": "layers.*.mlp.shared.up",
    f"{experts.MLP}.shared_expert.down_proj": "layers.*.mlp.shared.down",
    f"{experts.MLP}.shared_expert_gate": "layers.*.mlp.shared_gate",
}


def build(c: Config) -> Decoder:
    """Compose the bricks that a Qwen2-MoE config.json describes."""
    width, count = c.count("hidden_size"), c.count("num_experts")
    hidden, shared = c.count("moe_intermediate_size"), c.count("shared_expert_intermediate_size")
    rule = experts.routing(c, count)
    mixtures = experts.sparse(c, c.count("num_hidden_layers", most=MOST_LAYERS))
    c.must("use_sliding_window", False)  # published code disagrees on which layers would have a window

    def feedforward(make: llama.Make, index: int) -> nn.Module:
        if index not in mixtures:
            return make()
        each = (make(hidden=hidden) for _ in range(count))
        return GatedSharedMoE(width, each, rule, make(hidden=shared))

    return qwen2.build(c, feedforward=feedforward)
