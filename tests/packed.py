"""Random packed matrices of plausible size, for tests of everything that multiplies by one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bestiary.formats import Format

# Where the float16 fields of a block stand. Random bytes there would be infinite or vastly unlike each other.
HALF_FIELDS = {
    "F16": (0,), "BF16": (0,), "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,),
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,),
    "IQ4_XS": (0,),
}  # fmt: skip


def packed(fmt: Format, rows: int, columns: int, *, seed: int = 0, std: float | None = None) -> Tensor:
    """Return uint8 (rows, fmt.row_bytes(columns)) with random integers and random scales near 0.01.

    std: scale the whole so that the decoded matrix has this standard deviation.
    """
    random = np.random.default_rng(seed)
    blocks = columns // fmt.block
    raw = torch.from_numpy(random.integers(0, 256, (rows, blocks, fmt.nbytes), dtype=np.uint8))
    scales = torch.from_numpy(random.normal(0, 0.01, (rows, blocks, len(HALF_FIELDS[fmt.name]))))
    _plant(fmt, raw, scales)
    if std is not None:
        _plant(fmt, raw, scales * (std / fmt.decode(raw.flatten(1)).std()))
    return raw.flatten(1)


def _plant(fmt: Format, raw: Tensor, scales: Tensor) -> None:
    for field, at in enumerate(HALF_FIELDS[fmt.name]):
        half = scales[..., field, None].to(torch.bfloat16 if fmt.name == "BF16" else torch.float16)
        raw[:, :, at : at + 2] = half.view(torch.uint8)
