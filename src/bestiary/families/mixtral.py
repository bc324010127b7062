"""Mixtral: Llama with a mixture of experts in each block."""

from __future__ import annotations

from ..bricks import MoE, softmax_of_top
from ..config import Config
from ..models import Decoder
from ..tensors import Rules
from . import llama

_MLP = "model.layers.*.block_sparse_moe"

TENSORS: Rules = {
    **llama.TENSORS,
    f"{_MLP}.gate": "layers.*.mlp.route",
    f"{_MLP}.experts.*.w1": "layers.*.mlp.experts.*.gate",
    f"{_MLP}.experts.*.w2": "layers.*.mlp.experts.*.down",
    f"{_MLP}.experts.*.w3": "layers.*.mlp.experts.*.up",
}


def build(c: Config, *, interleaved: bool = False) -> Decoder:
    """Compose the bricks that a Mixtral config.json describes. interleaved: how the weights pair channels."""
    width, experts = c.count("hidden_size"), c.count("num_local_experts", 8)
    rule = softmax_of_top(c.count("num_experts_per_tok", 2, most=experts))

    def mixture(make: llama.Make, index: int) -> MoE:
        return MoE(width, (make() for _ in range(experts)), rule)

    return llama.build(c, interleaved=interleaved, feedforward=mixture)
