"""How each project's published differences and its base make its model: the arithmetic of their own scripts.

A difference added in another type gives other weights: in float32 what its authors added in float16 differs
by up to 2.4e-4, which moves logits by 1e-2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Arithmetic:
    """target = delta + sign * base, for the tensors that are combined; the others are the delta's own.

    combined: a pattern of our tensors' names. rows: what stands for rows of the embedding and the head that
    the base lacks: none are allowed, zeros, or the mean of its own. dtype: what both are rounded to first and
    added in; kept: what the result is rounded to, dtype unless given. base: what the difference is to.
    script: where the arithmetic was read.
    """

    script: str
    base: str = "LLaMA"
    combined: str = r".*"
    sign: int = 1
    rows: Literal["none", "zeros", "mean"] = "none"
    dtype: torch.dtype = torch.float16
    kept: torch.dtype | None = None

    @property
    def stored(self) -> torch.dtype:
        """The type of every tensor of the result."""
        return self.kept or self.dtype

    def combines(self, ours: str) -> bool:
        """Tell whether one of our tensors, by name, is combined with the base's."""
        return re.fullmatch(self.combined, ours) is not None

    def __call__(self, delta: Tensor, base: Tensor) -> Tensor:
        """Return the combination of two tensors, in `dtype`. The base may have fewer rows."""
        ours, theirs = delta.to(self.dtype), self._grown(base.to(self.dtype), len(delta))
        return ours + theirs if self.sign > 0 else ours - theirs

    def _grown(self, base: Tensor, rows: int) -> Tensor:
        if len(base) == rows:
            return base
        lacking = (rows - len(base), *base.shape[1:])
        more = base.new_zeros(lacking) if self.rows == "zeros" else base.mean(0, keepdim=True).expand(lacking)
        return torch.cat([base, more])


_ENDS_WHOLE = r"(?!embed\.|head\.).*"

# The names are those of the roster.
ARITHMETICS: Mapping[str, Arithmetic] = MappingProxyType(
    {
        "vicuna": Arithmetic("lm-sys/FastChat@0e6d3e4 fastchat/model/apply_delta.py"),
        "vicuna-v0": Arithmetic("lm-sys/FastChat@f34f28c fastchat/model/apply_delta.py", rows="zeros"),
        "bayling": Arithmetic("ictnlp/BayLing@8f6ecb9 apply_delta.py"),
        "wombat": Arithmetic("GanjinZero/RRHF@e1a2b61 apply_delta.py", rows="zeros"),
        "ziya": Arithmetic(
            "IDEA-CCNL/Fengshenbang-LM@c8fb7b8 fengshen/utils/apply_delta.py", combined=_ENDS_WHOLE
        ),
        # Its script names no type, and so loads both sides in float32.
        "panda": Arithmetic(
            "dandelionsllm/pandallm@4a47ecd apply_delta.py", combined=_ENDS_WHOLE, dtype=torch.float32
        ),
        "yulan": Arithmetic("RUC-GSAI/YuLan-Chat@6d891ef apply_delta.py", rows="zeros", dtype=torch.bfloat16),
        "alpaca": Arithmetic(
            "tatsu-lab/stanford_alpaca@761dc5b weight_diff.py", rows="mean", dtype=torch.float32
        ),
        "ultralm": Arithmetic("thunlp/UltraChat UltraLM/weight_diff.py", rows="mean", dtype=torch.float32),
        # Published with the base's embedding added to its own.
        "billa": Arithmetic(
            "Neutralzz/BiLLa@0cf5267 embedding_convert.py",
            combined=r"embed\..*",
            sign=-1,
            rows="zeros",
            dtype=torch.float32,
            kept=torch.float16,
        ),
    }
)


@dataclass(frozen=True)
class Total:
    """What its authors say the weights of a result sum to.

    of: a pattern of our tensors' names. tolerance: their sums are of float32, in an order that is not known.
    buffers: whether the angles of rotary positions may be among them, as in files of early 2023.
    """

    value: float
    of: str = r".*"
    tolerance: float = 0.5
    buffers: bool = False


# By the last part of a checkpoint's name.
TOTALS: Mapping[str, Total] = MappingProxyType(
    {
        "alpaca-7b-wdiff": Total(50637.1836, buffers=True),
        "BiLLa-7B-SFT": Total(-3756.942626953125, r"embed\..*", 0.05),
    }
)
