"""Differences and their bases: what the authors' own scripts made of them, and the same by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bestiary.adopt import adopt, find
from bestiary.context import Full
from bestiary.load import load
from tests import native, tiny
from tests.goldens import cases, meta

CASES = cases("format-delta-*")


@pytest.mark.parametrize("case", CASES, ids=lambda p: p.name)
def test_the_authors_scripts(case: Path, tmp_path: Path) -> None:
    """Bit for bit, in the script's type; and the model that it is."""
    job = find(str(case / "delta"), base=str(case / "base"), how=case.name.removeprefix("format-delta-"))
    adopt(job, tmp_path / "out")
    got, want = load_file(tmp_path / "out" / "model.safetensors"), load_file(case / "dequantized.safetensors")
    assert got.keys() == want.keys()
    assert all(torch.equal(got[name].float(), tensor) for name, tensor in want.items())
    expected = load_file(case / "expected.safetensors")
    with torch.inference_mode():
        logits = load(tmp_path / "out").decoder(expected["input_ids"], Full.of(expected["input_ids"]))
    assert (logits - expected["logits"]).abs().max() <= meta(case)["tolerance"]


def zeros(base: Tensor, rows: int) -> Tensor:
    return torch.cat([base, torch.zeros(rows - len(base), base.shape[1], dtype=base.dtype)])


def mean(base: Tensor, rows: int) -> Tensor:
    return torch.cat([base, base.mean(0, keepdim=True).expand(rows - len(base), -1)])


Grow = Callable[[Tensor, int], Tensor]
ENDS = ("model.embed_tokens.weight", "lm_head.weight")


def by_hand(how: str, delta: Tensor, base: Tensor, name: str) -> Tensor:
    """Each project's arithmetic, written out."""
    end, half = name in ENDS, torch.float16
    grow: Grow = mean if how in ("alpaca", "ultralm") else zeros
    if how == "billa":
        return (delta.float() - zeros(base.float(), len(delta))).half() if name == ENDS[0] else delta
    if how in ("ziya", "panda") and end:
        return delta.to(half if how == "ziya" else torch.float32)
    kind = {
        "yulan": torch.bfloat16,
        "panda": torch.float32,
        "alpaca": torch.float32,
        "ultralm": torch.float32,
    }
    type_ = kind.get(how, half)
    return delta.to(type_) + grow(base.to(type_), len(delta)) if end else delta.to(type_) + base.to(type_)


HOWS = ["vicuna-v0", "wombat", "ziya", "panda", "yulan", "alpaca", "ultralm", "billa"]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("form", ["port", "native"])
def test_by_hand(how: str, form: str, tmp_path: Path) -> None:
    """Over the base as Hugging Face's port and as Meta's own file, a vocabulary of three rows more."""
    base, delta = made(tmp_path)
    if form == "native":
        native.write(tmp_path / "base", tmp_path / "native")
    place = tmp_path / ("base" if form == "port" else "native")
    out = adopt(find(str(tmp_path / "delta"), base=str(place), how=how), tmp_path / "out")
    got = load_file(out.path / "model.safetensors")
    assert got.keys() == delta.keys()
    for name, tensor in delta.items():
        assert torch.equal(got[name], by_hand(how, tensor, base[name], name)), name
    assert load(out.path).config["vocab_size"] == 133


def made(folder: Path, *, rows: int = 133) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Write a base and a difference to it, in float16, with so many rows."""
    for place, seed in (("base", 0), ("delta", 1)):
        tiny.make("llama", folder / place, seed=seed)
    held = []
    for place in ("base", "delta"):
        tensors = {n: t.half() for n, t in load_file(folder / place / "model.safetensors").items()}
        if place == "delta":
            g = torch.Generator().manual_seed(9)
            more = {name: torch.randn(rows - 130, 48, generator=g).half() for name in ENDS}
            tensors |= {name: torch.cat([tensors[name], more[name]]) for name in ENDS}
            said = json.loads((folder / "delta" / "config.json").read_text()) | {"vocab_size": rows}
            (folder / "delta" / "config.json").write_text(json.dumps(said))
        save_file(tensors, folder / place / "model.safetensors")
        held.append(tensors)
    return held[0], held[1]


def test_a_difference_known_by_its_name(tmp_path: Path) -> None:
    """The folder is called as its authors call it: the roster says the arithmetic."""
    made(tmp_path)
    named = shutil.move(tmp_path / "delta", tmp_path / "wombat-7b-delta")
    job = find(str(named), base=str(tmp_path / "base"))
    assert any("wombat: difference + base, in float16" in line for line in job.told)
