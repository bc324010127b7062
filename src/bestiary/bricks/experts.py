"""Mixtures of experts: a router chooses a few feed-forward layers for each token.

Experts are modules of their own (`experts.3.gate`), as q, k and v are: an adapter, a quantised linear and a
published tensor each meet a plain Linear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from ..kernels.experts import mixture

# Router logits (N, experts) -> weights (N, k) float32 and which experts (N, k) int64.
Routing = Callable[[Tensor], tuple[Tensor, Tensor]]


def softmax_of_top(count: int) -> Routing:
    """Weigh the `count` largest logits by the softmax among themselves: Mixtral, arXiv 2401.04088.

    It is also the softmax over all, of which the largest are made to sum to one: norm_topk_prob in the files
    of Qwen and DeepSeek, as the sum over all cancels.
    """

    def route(logits: Tensor) -> tuple[Tensor, Tensor]:
        top, chosen = logits.float().topk(count)
        return top.softmax(-1), chosen

    return route


def top_of_softmax(count: int) -> Routing:
    """Take the `count` largest of the softmax over all experts as they are: Grok-1, DeepSeekMoE."""

    def route(logits: Tensor) -> tuple[Tensor, Tensor]:
        weights, chosen = logits.softmax(-1, dtype=torch.float32).topk(count)
        return weights, chosen

    return route


def nearest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Take the largest, and that expert as it is: BASE layers, Lewis et al., 2021, arXiv 2103.16716.

    In training each expert has as many tokens as the next; what is read later goes where it belongs most.
    """
    chosen = logits.argmax(-1, keepdim=True)
    return torch.ones_like(chosen, dtype=torch.float32), chosen


class MoE(nn.Module):
    """The weighted sum of the experts that a router chooses for each token: Shazeer et al., 2017.

    x (*L, width) -> (*L, width).
    """

    def __init__(self, width: int, experts: Iterable[nn.Module], routing: Routing) -> None:
        super().__init__()
        self.experts, self.routing = nn.ModuleList(experts), routing
        self.route = nn.Linear(width, len(self.experts), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        weights, chosen = self.routing(self.route(rows))
        return mixture(rows, weights.to(x.dtype), chosen, self.experts).view_as(x)


class SharedMoE(MoE):
    """A mixture, and one expert that every token has: DeepSeekMoE, arXiv 2401.06066."""

    def __init__(self, width: int, experts: Iterable[nn.Module], routing: Routing, shared: nn.Module) -> None:
        super().__init__(width, experts, routing)
        self.shared = shared

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.shared(x)  # type: ignore[no-any-return]


class GatedSharedMoE(SharedMoE):
    """A mixture, and one expert that every token has to a degree of its own: Qwen1.5-MoE."""

    def __init__(self, width: int, experts: Iterable[nn.Module], routing: Routing, shared: nn.Module) -> None:
        super().__init__(width, experts, routing, shared)
        self.shared_gate = nn.Linear(width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return MoE.forward(self, x) + self.shared_gate(x).sigmoid() * self.shared(x)  # type: ignore[no-any-return]
