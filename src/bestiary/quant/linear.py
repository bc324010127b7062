"""Linear and Embedding whose weight stays as packed in the file: 8-bit stays 8-bit, 4-bit stays 4-bit.

The buffer `weight` holds the file's bytes, uint8 (rows, row bytes), so loading assigns a view of the memory
map and saving writes the same bytes back. `Format` says what they mean.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..formats import Format
from ..kernels.matmul import packed_decode, packed_linear

__all__ = ["PackedEmbedding", "PackedLinear"]


class PackedLinear(nn.Module):
    """y = x @ decode(weight).T + bias, as nn.Linear of the decoded weight computes it in float32.

    x (..., in_features) of any floating dtype, result (..., out_features) of the same. The weight takes no
    gradient, x and bias do.
    """

    weight: Tensor

    def __init__(self, in_features: int, out_features: int, fmt: Format, *, bias: bool = False) -> None:
        super().__init__()
        self.in_features, self.out_features, self.fmt = in_features, out_features, fmt
        packed = torch.zeros(out_features, fmt.row_bytes(in_features), dtype=torch.uint8)
        self.register_buffer("weight", packed)
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Multiply x (..., in_features). KernelError when its last dimension does not fit."""
        return packed_linear(x, self.weight, self.fmt, self.bias)

    def dequantize(self) -> Tensor:
        """Decode the whole weight: float32 (out_features, in_features)."""
        return packed_decode(self.weight, self.fmt)

    def extra_repr(self) -> str:
        """Say the sizes and the format, as nn.Linear does."""
        return f"{self.in_features}, {self.out_features}, {self.fmt.name}, bias={self.bias is not None}"


class PackedEmbedding(nn.Module):
    """A table of vectors of which only the rows asked for are decoded.

    ids (...) of an integer dtype, result (..., embedding_dim) of `dtype`.
    """

    weight: Tensor

    def __init__(
        self, num_embeddings: int, embedding_dim: int, fmt: Format, *, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.fmt, self.dtype = fmt, dtype
        packed = torch.zeros(num_embeddings, fmt.row_bytes(embedding_dim), dtype=torch.uint8)
        self.register_buffer("weight", packed)

    def forward(self, ids: Tensor) -> Tensor:
        """Look up ids (...). IndexError, as of nn.Embedding, for an id outside of the table."""
        rows = self.weight.index_select(0, ids.flatten())
        return packed_decode(rows, self.fmt).to(self.dtype).view(*ids.shape, self.embedding_dim)

    def dequantize(self) -> Tensor:
        """Decode the whole table: float32 (num_embeddings, embedding_dim)."""
        return packed_decode(self.weight, self.fmt)

    def extra_repr(self) -> str:
        """Say the sizes and the format, as nn.Embedding does."""
        return f"{self.num_embeddings}, {self.embedding_dim}, {self.fmt.name}, dtype={self.dtype}"
