"""Balancing losses of mixtures of experts: that no expert is left without tokens, none has them all.

Each implementation has its own scale; a coefficient made for one is another's by mistake.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ...errors import RequestError


def balance(logits: Sequence[Tensor], count: int, real: Tensor | None = None) -> Tensor:
    """Return E sum(share of tokens that take e, times the mean probability of e): Mixtral, Qwen-MoE.

    Fedus et al., 2021, arXiv 2101.03961, equation 4, for `count` experts a token: a balanced router has
    `count`. Tokens of all layers are one pool. transformers 5, models/mixtral, load_balancing_loss_func;
    training adds router_aux_loss_coef times this.

    logits: of each layer's router, (N, E). real: which tokens are no padding, bool (N). Raises RequestError
    for shapes that do not fit.
    """
    pool = _pool(logits, count)
    if real is not None:
        if real.shape != logits[0].shape[:1]:
            raise RequestError(
                f"real {tuple(real.shape)} should say of each of {len(logits[0])} tokens whether it is real"
            )
        pool = pool[real.bool().repeat(len(logits))]
    probability = pool.softmax(-1)
    taken = one_hot(probability.topk(count).indices, pool.shape[-1]).sum(-2).float()
    return pool.shape[-1] * (taken.mean(0) * probability.mean(0)).sum()


def balance_of_chosen(logits: Sequence[Tensor], count: int) -> Tensor:
    """Return what transformers 4.36 computed for Mixtral: softmax over a token's chosen logits alone.

    For comparison with runs of its time. The mean of what a token's choices weigh is 1 / count, whatever they
    are, so the loss is E / count, and no gradient comes of it. models/mixtral/modeling_mixtral.py, v4.36.2.
    """
    pool = _pool(logits, count)
    top = pool.topk(count)
    share = one_hot(top.indices, pool.shape[-1]).float().mean(-2)  # (N, E)
    chance = top.values.softmax(-1).mean(-1, keepdim=True)  # (N, 1)
    return pool.shape[-1] ** 2 * (share * chance).mean()


def balance_of_sequences(logits: Tensor, count: int) -> Tensor:
    """Return the mean over sequences of sum(E / (k T) tokens of e, times the mean probability of e).

    DeepSeek-MoE, Dai et al., 2024, arXiv 2401.06066, equation 12, by sequence: seq_aux of MoEGate in
    modeling_deepseek.py. A balanced router has 1. logits (B, T, E).
    """
    probability, taken = _routed(logits, count)
    share = taken.mean(-2) * (logits.shape[-1] / count)
    return (share * probability.mean(-2)).sum(-1).mean()


def balance_of_batch(logits: Tensor, count: int) -> Tensor:
    """Return sum(E / k times the share of tokens that take e, times the mean probability of e).

    DeepSeek-MoE without seq_aux: all sequences are one. A balanced router has 1. logits (B, T, E).
    """
    return balance_of_sequences(logits.flatten(0, -2)[None], count)


def _routed(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return probabilities (*L, E) and which experts each token takes, 0 or 1, (*L, E)."""
    _check(logits, count)
    probability = logits.softmax(-1, dtype=torch.float32)
    return probability, one_hot(probability.topk(count).indices, logits.shape[-1]).sum(-2).float()


def _pool(logits: Sequence[Tensor], count: int) -> Tensor:
    if not logits or any(layer.ndim != 2 or layer.shape != logits[0].shape for layer in logits):
        shapes = ", ".join(str(tuple(layer.shape)) for layer in logits) or "none"
        raise RequestError(f"router logits should be (tokens, experts), alike for all layers: {shapes}")
    _check(logits[0], count)
    return torch.cat(list(logits)).float()


def _check(logits: Tensor, count: int) -> None:
    if not 1 <= count <= logits.shape[-1]:
        raise RequestError(f"{count} of {logits.shape[-1]} experts cannot be chosen")
