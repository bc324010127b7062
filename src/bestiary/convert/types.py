"""Which type each tensor of a GGUF file gets, as llama.cpp's quantiser chooses (src/llama-quant.cpp).

Vectors, routers and tables of positions stay in float32. Rows that do not fill whole blocks fall back to a
type of smaller blocks. Q4_K is llama.cpp's mixture Q4_K_M: what errors hurt most gets six bits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..formats import FORMATS

# --type -> general.file_type (enum llama_ftype); None: as the source has each tensor.
FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7, "q4_k": 15, "bf16": 32}
TYPES = tuple(FILE_TYPES)
_FLOAT32 = re.compile(r"position_embd|token_types|rope_f.*|.*ffn_gate_inp(_shexp)?")
# What a type gives way to where rows do not fill its blocks.
_SMALLER = {"Q4_K": "Q5_0", "Q6_K": "Q8_0", "Q4_0": "F16", "Q5_0": "F16", "Q8_0": "F16"}
_LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.weight")


@dataclass(frozen=True)
class Choice:
    """The type of a tensor, and the one that it has not because its rows do not fill whole blocks."""

    dtype: str
    instead_of: str | None = None


def choose(kind: str, name: str, shape: Sequence[int], *, layers: int, ends: str) -> Choice:
    """Return the type of a tensor by its name in GGUF.

    kind: one of TYPES. layers: how many the model has. ends: the name of the tensor that makes logits.
    """
    module = name.removesuffix(".weight")
    if len(shape) < 2 or not name.endswith(".weight") or _FLOAT32.fullmatch(module):
        return Choice("F32")
    wanted = _wanted(kind, name, layers, ends)
    dtype = wanted
    while dtype in FORMATS and shape[-1] % FORMATS[dtype].block:
        dtype = _SMALLER[dtype]
    return Choice(dtype, wanted if dtype != wanted else None)


def _wanted(kind: str, name: str, layers: int, ends: str) -> str:
    if name == ends and kind in ("q4_0", "q4_k"):
        return "Q6_K"
    if kind != "q4_k" or not (found := _LAYER.fullmatch(name)):
        return kind.upper()
    index, part = int(found[1]), found[2]
    if part == "attn_qkv":
        return "Q6_K"
    eighth = layers // 8
    more = index < eighth or index >= 7 * layers // 8 or (index - eighth) % 3 == 2
    return "Q6_K" if more and part in ("attn_v", "ffn_down", "ffn_down_exps") else "Q4_K"
