"""DeepSeekMoE (version 1): Llama whose upper layers are mixtures, with experts that all tokens have."""

from __future__ import annotations

from torch import nn

from ..bricks import SharedMoE
from ..config import Config
from ..models import Decoder
from ..tensors import Rules
from . import experts, llama

TENSORS: Rules = {
    **llama.TENSORS,
    **experts.TENSORS,
    f"{experts.MLP}.shared_experts.gate_proj": "layers.*.mlp.shared.gate",
    f"{experts.MLP}.shared_experts.up_proj": "layers.*.mlp.shared.up",
    f"{experts.MLP}.shared_experts.down_proj": "layers.*.mlp.shared.down",
}


def build(c: Config) -> Decoder:
    """Compose the bricks that a DeepSeekMoE config.json describes."""
    width, hidden = c.count("hidden_size"), c.count("moe_intermediate_size")
    count, shared = c.count("n_routed_experts"), c.count("n_shared_experts")
    first, step = c.count("first_k_dense_replace", 0, least=0), c.count("moe_layer_freq", 1)
    rule = experts.routing(c, count)
    c.must("scoring_func", "softmax")

    def feedforward(make: llama.Make, index: int) -> nn.Module:
        if index < first or index % step:
            return make()
        each = (make(hidden=hidden) for _ in range(count))
        return SharedMoE(width, each, rule, make(hidden=shared * hidden))  # side by side: one wider layer

    return llama.build(c, feedforward=feedforward)
