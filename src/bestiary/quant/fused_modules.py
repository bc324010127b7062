"""Modules whose rows the C kernels compute one as another: a norm and a product with plain floats."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..kernels import native
from ..kernels.matmul import float_linear

__all__ = ["FusedLinear", "FusedRMSNorm"]

# Elements that one thread norms sooner than two can be told to.
_SMALL = 1 << 14


class FusedRMSNorm(nn.RMSNorm):
    """nn.RMSNorm in one pass over memory, in float32 on a CPU, outside of autograd."""

    def __init__(self, norm: nn.RMSNorm) -> None:
        with torch.device("meta"):  # its own weight is about to be replaced
            super().__init__(norm.normalized_shape, norm.eps)
        self.weight = norm.weight
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        if (
            torch.is_grad_enabled()
            or torch.compiler.is_compiling()
            or not (x.dtype == weight.dtype == torch.float32 and x.is_cpu and weight.is_cpu)
            or not (x.is_contiguous() and weight.is_contiguous() and x.shape[-1:] == weight.shape)
            or native.absence() is not None
        ):
            return super().forward(x)
        out = torch.empty_like(x)
        rows, width = x.numel() // len(weight), len(weight)
        threads = torch.get_num_threads() if x.numel() > _SMALL else 1
        addresses = x.data_ptr(), weight.data_ptr(), rows, width, self.eps, out.data_ptr()
        native.library().rms_norm(*addresses, threads)
        return out


class FusedLinear(nn.Linear):
    """nn.Linear of which every row is summed in one order, on a CPU, outside of autograd."""

    def __init__(self, linear: nn.Linear) -> None:
        with torch.device("meta"):  # its own weight is about to be replaced
            super().__init__(linear.in_features, linear.out_features, linear.bias is not None)
        self.weight, self.bias = linear.weight, linear.bias
        self.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or x.dtype != self.weight.dtype:
            return super().forward(x)
        return float_linear(x, self.weight, self.bias)
