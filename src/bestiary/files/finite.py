"""Are a tensor's values numbers? One pass over what the file holds, without unpacking it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from ..formats import FORMATS

# Where the half-precision scales of a packed block lie: first byte, how many. The rest of a block is
# integers.
SCALES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "Q4_0": (0, 1),
        "Q4_1": (0, 2),
        "Q5_0": (0, 1),
        "Q5_1": (0, 2),
        "Q8_0": (0, 1),
        "Q2_K": (80, 2),
        "Q3_K": (108, 1),
        "Q4_K": (0, 2),
        "Q5_K": (0, 2),
        "Q6_K": (208, 1),
        "IQ4_NL": (0, 1),
        "IQ4_XS": (0, 1),
    }
)
_CHUNK = 1 << 20  # elements: what is copied in passing stays small


def is_finite(tensor: Tensor, dtype: str) -> bool:
    """Tell whether all values of a tensor, as an Entry of this dtype reads, are finite; integers are."""
    return tensor.numel() == 0 or all(map(_all_finite, _parts(tensor, dtype)))


def _parts(tensor: Tensor, dtype: str) -> Iterator[Tensor]:
    if dtype in SCALES:
        first, count = SCALES[dtype]
        for blocks in tensor.view(-1, FORMATS[dtype].nbytes).split(_CHUNK):
            yield blocks[:, first : first + 2 * count].contiguous().view(torch.float16)
    elif tensor.is_complex():
        yield from torch.view_as_real(tensor).reshape(-1).split(_CHUNK)
    elif tensor.is_floating_point():
        for part in tensor.reshape(-1).split(_CHUNK):
            yield part if part.itemsize > 1 else part.float()


def _all_finite(part: Tensor) -> bool:
    # The extremes carry any NaN or infinity, and need no mask in memory: ten times as fast as
    # isfinite().all().
    low, high = torch.aminmax(part)
    return bool(low.isfinite() & high.isfinite())
