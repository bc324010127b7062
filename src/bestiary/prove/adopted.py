"""Deltas and adapters as they were published: the logits that their projects' own tools gave."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from .. import adapters
from ..context import Full
from ..errors import BestiaryError
from ..load import load
from .finding import Finding
from .places import hints, meta


@torch.inference_mode()
def compare(case: Path) -> Finding:
    """Return whether a base and what was published to go on it give the logits of the case."""
    want, allowed = load_file(case / "expected.safetensors"), float(meta(case)["tolerance"])
    what = f"adopt {case.name}"
    try:
        loaded = load(case, config=hints(case))
        adapters.attach(loaded, adapters.read(case / "adapter"))
        tokens = want["input_ids"]
        got = loaded.decoder(tokens, Full.of(tokens))
    except BestiaryError as error:
        return Finding(what, False, note=str(error))
    return Finding.near(what, (got - want["logits"]).abs().max().item(), allowed)
