"""How config.json files spell mixtures of experts, since Qwen1.5-MoE and DeepSeekMoE."""

from __future__ import annotations

from ..bricks import Routing, softmax_of_top, top_of_softmax
from ..config import Config
from ..tensors import Rules

MLP = "model.layers.*.mlp"

TENSORS: Rules = {
    f"{MLP}.gate": "layers.*.mlp.route",
    f"{MLP}.experts.*.gate_proj": "layers.*.mlp.experts.*.gate",
    f"{MLP}.experts.*.up_proj": "layers.*.mlp.experts.*.up",
    f"{MLP}.experts.*.down_proj": "layers.*.mlp.experts.*.down",
}


def routing(c: Config, experts: int) -> Routing:
    """Read num_experts_per_tok and norm_topk_prob: the softmax over all, or over those chosen."""
    rule = softmax_of_top if c.flag("norm_topk_prob", False) else top_of_softmax
    return rule(c.count("num_experts_per_tok", most=experts))


def sparse(c: Config, layers: int) -> frozenset[int]:
    """Read decoder_sparse_step and mlp_only_layers: return which layers are mixtures."""
    step, dense = c.count("decoder_sparse_step", 1), c.values("mlp_only_layers", int) or []
    return frozenset(range(step - 1, layers, step)) - frozenset(dense)
