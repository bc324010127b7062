"""Softmax attention: what a layer asks for (Score), who may see whom (Sight), and what computes it.

Shapes, one notation for this file: B sequences, Q queries, K keys, H query heads, G key/value heads
(G divides H), D channels a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import Table

# (q_pos (B, Q), k_pos (B, K)) -> (B, H, Q, K), added to the scores: ALiBi, T5's buckets.
Bias = Callable[[Tensor, Tensor], Tensor]
# (q, k, sight) -> (q, k): positions that act on queries and keys where they meet.
Meeting = Callable[[Tensor, Tensor, "Sight"], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Lead:
    """Keys and values (K, G, D) that stand before those of every sequence, where every query sees them."""

    k: Tensor
    v: Tensor

    def before(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return these and then k and v (B, K, G, D)."""
        k, v = (
            torch.cat((lead.to(own.dtype).expand(len(own), -1, -1, -1), own), 1)
            for lead, own in ((self.k, k), (self.v, v))
        )
        return k, v


@dataclass(frozen=True)
class Score:
    """How one attention layer turns q.k into weights. Static: it belongs to the layer.

    scale: factor on q.k (None: head_dim ** -0.5). causal: a query sees no later key. window: a query sees at
    most this many keys, itself included. softcap: scores pass through cap * tanh(score / cap). bias: see
    Bias. meeting: see Meeting; what a cache holds are then keys without positions. lead: see Lead; a context
    sets it, no layer does.
    """

    scale: float | None = None
    causal: bool = True
    window: int | None = None
    softcap: float | None = None
    bias: Bias | None = None
    meeting: Meeting | None = None
    lead: Lead | None = None


@dataclass
class Sight:
    """Where the queries and keys of one rectangle stand, and which keys exist.

    q_pos (B, Q) and k_pos (B or 1, K): absolute positions. seen: None, or bool, broadcastable to (B, Q, K).
    lengths (B, 1): tokens of each sequence. prefix (B, 1): how many first keys every query sees, causal or
    not. since (B, Q): the first key that each query sees.
    """

    q_pos: Tensor
    k_pos: Tensor
    seen: Tensor | None = None
    lengths: Tensor | None = None
    prefix: Tensor | None = None
    since: Tensor | None = None
    remembered: dict[object, Any] = field(default_factory=dict, repr=False)
    _masks: dict[tuple[object, ...], Tensor] = field(default_factory=dict, repr=False)

    def mask(self, score: Score, dtype: torch.dtype) -> Tensor | None:
        """Return what is added to the scores, (B, 1 or H, Q, K), a Score's lead before its keys.

        None where every query sees every key. Made once a step and remembered: all layers of a model but a
        few share one Score.
        """
        narrowed = (self.seen, self.since, score.window, score.bias)
        if not score.causal and all(part is None for part in narrowed):
            return None
        led = 0 if score.lead is None else len(score.lead.k)
        key = (score.causal, score.window, score.bias, led, dtype)
        if key not in self._masks:
            mask = self._make(score, dtype)
            self._masks[key] = F.pad(mask, (led, 0)) if led else mask
        return self._masks[key]

    def _make(self, score: Score, dtype: torch.dtype) -> Tensor:
        apart = self.q_pos[:, :, None] - self.k_pos[:, None, :]  # (B, Q, K)
        allowed = (
            torch.ones_like(apart, dtype=torch.bool) if self.seen is None else self.seen.expand_as(apart)
        )
        if score.causal:
            ahead = apart >= 0
            if self.prefix is not None:
                ahead = ahead | (self.k_pos < self.prefix)[:, None]
            allowed = allowed & ahead
        if self.since is not None:
            allowed = allowed & (self.k_pos[:, None] >= self.since[..., None])
        if score.window is not None:
            allowed = allowed & (apart < score.window)
        # The lowest finite number, not -inf: a padding row that sees nobody stays finite instead of NaN, and
        # NaN times an attention weight of zero would poison the rows that see it.
        hidden = torch.finfo(dtype).min
        if score.bias is not None:
            bias = score.bias(self.q_pos, self.k_pos).to(dtype)
            return torch.where(allowed[:, None], bias, hidden)  # bias (B, H, 1 or Q, K)
        zero = torch.zeros((), dtype=dtype, device=apart.device)
        return torch.where(allowed[:, None], zero, hidden)


def reference(q: Tensor, k: Tensor, v: Tensor, score: Score, sight: Sight) -> Tensor:
    """Compute softmax(cap(scale * q.k) + mask) v in plain torch. q (B, Q, H, D), k and v (B, K, G, D)."""
    groups = q.shape[2] // k.shape[2]
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, H or G, Q or K, D)
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    s = q @ k.mT * (score.scale or q.shape[-1] ** -0.5)  # (B, H, Q, K)
    if score.softcap is not None:
        s = score.softcap * torch.tanh(s / score.softcap)
    mask = sight.mask(score, q.dtype)
    s = s if mask is None else s + mask
    return (s.softmax(-1, dtype=torch.float32).to(v.dtype) @ v).transpose(1, 2)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, score: Score, sight: Sight) -> Tensor:
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    mask = sight.mask(score, q.dtype)
    grouped = q.shape[1] != k.shape[1]
    out = F.scaled_dot_product_attention(q, k, v, mask, scale=score.scale, enable_gqa=grouped)
    return out.transpose(1, 2)


def _sdpa_supports(q: Tensor, k: Tensor, v: Tensor, score: Score, sight: Sight) -> str | None:
    return None if score.softcap is None else "torch's fused attention has no soft-cap"


# (q, k, v, score, sight) -> (B, Q, H, D)
softmax: Table[Tensor] = Table("attention")
softmax.add("torch-sdpa", _sdpa, _sdpa_supports)
softmax.add("reference", reference)


def attention(q: Tensor, k: Tensor, v: Tensor, score: Score, sight: Sight) -> Tensor:
    """Let queries q (B, Q, H, D) see keys and values (B, K, G, D) as score and sight allow: (B, Q, H, D)."""
    if score.meeting is not None:
        q, k = score.meeting(q, k, sight)
    if score.lead is not None:
        k, v = score.lead.before(k, v)
    return softmax(q, k, v, score, sight)
