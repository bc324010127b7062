"""Low-rank adapters: Hu et al., 2021, arXiv 2106.09685."""

from __future__ import annotations

import math
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Linear(Protocol):
    in_features: int
    out_features: int

    def __call__(self, x: Tensor) -> Tensor: ...


class _Dequantizes(Protocol):
    def dequantize(self) -> Tensor: ...


def dense(module: nn.Module) -> Tensor:
    """Return the weight that a module multiplies by or looks up in, whatever it is packed in: float32."""
    if hasattr(module, "dequantize"):
        packed: _Dequantizes = module  # type: ignore[assignment]  # PackedLinear, RowScaled, LoRA, ...
        return packed.dequantize().float()
    return module.get_parameter("weight").detach().float()


class LoRA(nn.Module):
    """base(x) + alpha / rank * B A x, over anything that maps in_features to out_features.

    Over a quantised base it is QLoRA (arXiv 2305.14314): the base's weight takes no gradient, A and B do.
    x (*L, in_features) -> (*L, out_features). A starts random and B at zero, so that a new adapter changes
    nothing. The names lora_A and lora_B are those of PEFT's files.
    """

    def __init__(self, base: nn.Module, *, rank: int, alpha: float) -> None:
        super().__init__()
        linear: _Linear = base  # type: ignore[assignment]  # nn.Linear, PackedLinear, RowScaled, LoRA, ...
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.base, self.scale = base.requires_grad_(False), alpha / rank
        kind = _kind(base)
        self.lora_A = nn.Linear(self.in_features, rank, bias=False, **kind)
        self.lora_B = nn.Linear(rank, self.out_features, bias=False, **kind)
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)

    @classmethod
    def of(cls, base: nn.Module, a: Tensor, b: Tensor, *, scale: float, dtype: torch.dtype) -> Self:
        """Return an adapter with an A and a B, scale = alpha / rank; dtype: what the model computes in."""
        made = cls(base, rank=len(a), alpha=scale * len(a))
        made.lora_A.weight, made.lora_B.weight = like(made.lora_A.weight, dtype, a, b)
        return made

    @property
    def rank(self) -> int:
        """The rows of A."""
        return self.lora_A.out_features

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * self.lora_B(self.lora_A(x))  # type: ignore[no-any-return]

    @torch.no_grad()
    def dequantize(self) -> Tensor:
        """Return the one weight that computes the same, base's + scale * B A: float32 (out, in)."""
        return dense(self.base) + self.scale * (self.lora_B.weight.float() @ self.lora_A.weight.float())


class LoRAEmbedding(nn.Module):
    """base(ids) + alpha / rank * B a, where a are the columns of A that the ids name. ids (...) int64.

    lora_embedding_A (rank, rows) and lora_embedding_B (width, rank) are as PEFT's files have them.
    """

    def __init__(self, base: nn.Module, *, rank: int, alpha: float) -> None:
        super().__init__()
        self.base, self.scale, self.rank = base.requires_grad_(False), alpha / rank, rank
        rows, width = int(base.num_embeddings), int(base.embedding_dim)  # type: ignore[arg-type]
        self.num_embeddings, self.embedding_dim = rows, width
        kind = _kind(base)
        # In PEFT's files A starts at zero here and B random; which of the two is trained first is the same.
        self.lora_embedding_A = nn.Parameter(torch.zeros(rank, rows, **kind))
        self.lora_embedding_B = nn.Parameter(torch.randn(width, rank, **kind))

    @classmethod
    def of(cls, base: nn.Module, a: Tensor, b: Tensor, *, scale: float, dtype: torch.dtype) -> Self:
        """Return an adapter with an A and a B, scale = alpha / rank; dtype: what the model computes in."""
        made = cls(base, rank=len(a), alpha=scale * len(a))
        made.lora_embedding_A, made.lora_embedding_B = like(made.lora_embedding_A, dtype, a, b)
        return made

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.base(ids)
        low = F.embedding(ids, self.lora_embedding_A.T) @ self.lora_embedding_B.T
        return out + self.scale * low.to(out.dtype)

    @torch.no_grad()
    def dequantize(self) -> Tensor:
        """Return the one table that gives the same: float32 (rows, width)."""
        low = (self.lora_embedding_B.float() @ self.lora_embedding_A.float()).T
        return dense(self.base) + self.scale * low


def like(place: Tensor, dtype: torch.dtype, *tensors: Tensor) -> tuple[nn.Parameter, ...]:
    """Return copies of a file's tensors where another is, in a type."""
    copies = (tensor.detach().to(device=place.device, dtype=dtype, copy=True) for tensor in tensors)
    return tuple(nn.Parameter(copy.contiguous()) for copy in copies)


def _kind(base: nn.Module) -> dict[str, Any]:
    """Return where an adapter lives, and in which type: its base's, or float32 beside packed bytes."""
    like = next((p for p in base.parameters() if p.is_floating_point()), None)
    if like is not None:
        return {"dtype": like.dtype, "device": like.device}
    device = next((b.device for b in base.buffers()), torch.device("cpu"))
    return {"dtype": torch.float32, "device": device}
