"""Other published forms: deltas, adapters, packed weights, GGUF files. The logits that others' tools gave."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from .. import adapters
from ..adopt import adopt, find
from ..context import Full
from ..errors import BestiaryError
from ..load import Loaded, load
from .finding import Finding, worst
from .places import hints, meta
from .reference import difference


@cache
@torch.inference_mode()
def compare(case: Path) -> Finding:
    """Return whether what was published gives the logits of the case, whatever form it has."""
    want, allowed = load_file(case / "expected.safetensors"), float(meta(case)["tolerance"])
    what = f"adopt {case.name}"
    try:
        errors = [_difference(got, want["input_ids"], logits) for got, logits in _models(case, want)]
    except BestiaryError as error:
        return Finding(what, False, note=str(error))
    if not errors:
        return Finding(what, None, note="the case holds no logits")
    return Finding.near(what, worst(errors), allowed)


def _difference(loaded: Loaded, tokens: Tensor, logits: Tensor) -> float:
    return difference(loaded.decoder(tokens, Full.of(tokens)), logits)


def _models(case: Path, want: dict[str, Tensor]) -> Iterator[tuple[Loaded, Tensor]]:
    """Yield the models of a case, each with the logits that it should have."""
    if (case / "delta").is_dir():
        name = case.name.removeprefix("format-delta-")
        with tempfile.TemporaryDirectory() as folder:
            job = find(str(case / "delta"), base=str(case / "base"), how=name)
            yield load(adopt(job, Path(folder) / "made").path), want["logits"]
    elif (case / "adapter").is_dir():
        loaded = load(case, config=hints(case))
        adapters.attach(loaded, adapters.read(case / "adapter"))
        yield loaded, want["logits"]
    elif files := sorted(case.glob("*.gguf")):
        # llama.cpp's own logits differ: it rounds what it multiplies. These are of the weights as decoded.
        for file in files:
            key = f"dequantised_logits.{file.stem.removeprefix('model-')}"
            if key in want:
                yield load(file), want[key]
    else:
        yield load(case, config=hints(case)), want["logits"]
