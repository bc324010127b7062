"""Qwen3-MoE: Qwen3 with mixtures of experts."""

from __future__ import annotations

from torch import nn

from ..bricks import MoE
from ..config import MOST_LAYERS, Config
from ..models import Decoder
from ..tensors import Rules
from . import experts, llama, qwen3

TENSORS: Rules = {**qwen3.TENSORS, **experts.TENSORS}


def build(c: Config) -> Decoder:
    """Compose the bricks that a Qwen3-MoE config.json describes."""
    width, count = c.count("hidden_size"), c.count(c.either("num_experts", "num_local_experts"))
    hidden, rule = c.count("moe_intermediate_size"), experts.routing(c, count)
    mixtures = experts.sparse(c, c.count("num_hidden_layers", most=MOST_LAYERS))
    c.must("use_sliding_window", False)  # published code disagrees on which layers would have a window

    def feedforward(make: llama.Make, index: int) -> nn.Module:
        if index not in mixtures:
            return make()
        return MoE(width, (make(hidden=hidden) for _ in range(count)), rule)

    return qwen3.build(c, feedforward=feedforward)
