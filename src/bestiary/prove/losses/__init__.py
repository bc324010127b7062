"""Training objectives against what published code computed from the same numbers: losses and gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from ...errors import BestiaryError
from ..finding import Finding
from . import alignment, examples, reinforced, weights
from .case import Case
from .law import scaling_law

__all__ = ["COMPARED", "compare", "scaling_law"]

COMPARED: Mapping[str, Callable[[Case], None]] = {
    "loss-bert-mlm": examples.bert_mlm,
    "loss-bert-wwm": examples.bert_wwm,
    "loss-crlft": reinforced.crlft,
    "loss-dpo": alignment.dpo,
    "loss-glm-blocks": examples.glm_blocks,
    "loss-kto": alignment.kto,
    "loss-label-smoothing": weights.label_smoothing,
    "loss-lora": weights.adapted,
    "loss-moe-aux": weights.moe_aux,
    "loss-orpo": alignment.orpo,
    "loss-packing": examples.packed,
    "loss-ppo": reinforced.ppo,
    "loss-qlora": weights.qlora,
    "loss-reward": alignment.reward,
    "loss-rrhf": alignment.rrhf,
    "loss-sft-alpaca": examples.sft_alpaca,
    "loss-sft-vicuna": examples.sft_vicuna,
    "loss-simpo": alignment.simpo,
    "loss-t5-span": examples.t5_span,
}


@cache
def compare(folder: Path) -> Finding:
    """Return whether an objective gives the numbers of a case, and all of them."""
    what = f"loss {folder.name}"
    check = next((own for name, own in COMPARED.items() if folder.name.startswith(name)), None)
    if check is None:
        return Finding(what, None, note="no objective here is compared with it")
    case = Case(folder)
    try:
        check(case)
    except BestiaryError as error:
        return Finding(what, False, note=str(error))
    return case.finding(what)
