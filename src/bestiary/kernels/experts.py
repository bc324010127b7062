"""The sum over chosen experts: x (N, width), weights and chosen (N, k), experts -> (N, width)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from . import Table

Experts = Sequence[Callable[[Tensor], Tensor]]


def every(x: Tensor, weights: Tensor, chosen: Tensor, experts: Experts) -> Tensor:
    """Run each expert on all tokens, with weight 0 where it was not chosen: no shape depends on a choice."""
    out = torch.zeros_like(x)
    for index, expert in enumerate(experts):
        share = (weights * (chosen == index)).sum(-1, keepdim=True)
        out = out + share * expert(x)
    return out


def hit(x: Tensor, weights: Tensor, chosen: Tensor, experts: Experts) -> Tensor:
    """Run each expert on the tokens that chose it, if there are any."""
    out = torch.zeros_like(x)
    for index in chosen.unique().tolist():
        rows, place = (chosen == index).nonzero(as_tuple=True)
        out = out.index_add(0, rows, weights[rows, place, None] * experts[index](x[rows]))
    return out


def _hit_supports(x: Tensor, weights: Tensor, chosen: Tensor, experts: Experts) -> str | None:
    without = torch.compiler.is_compiling() or chosen.is_meta
    return "which experts run depends on data" if without else None


# (x, weights, chosen, experts) -> (N, width)
mixture: Table[Tensor] = Table("experts")
mixture.add("hit", hit, _hit_supports)
mixture.add("every", every)
