"""Values that are no numbers are found, in every type and every packed format."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from bestiary.files import open_checkpoint
from bestiary.files.safetensors import write
from bestiary.files.source import DTYPES
from bestiary.formats import FORMATS
from tests.packed import HALF_FIELDS, packed
from tests.unit.files.craft import Gguf, GgufTensor

FLOATS = [name for name, dtype in DTYPES.items() if dtype.is_floating_point or dtype.is_complex]
BAD = {"nan": float("nan"), "inf": float("inf"), "-inf": -float("inf")}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bad", BAD)
def test_each_value_that_is_no_number_is_found(tmp_path: Path, dtype: str, bad: str) -> None:
    kind = DTYPES[dtype]
    tensors = {name: torch.randn(37).to(kind) for name in ("good", "first", "middle", "last")}
    for name, at in (("first", 0), ("middle", 17), ("last", 36)):
        tensors[name][at] = BAD[bad]
    tensors["zero"], tensors["none"], tensors["ints"] = (
        torch.zeros(3).to(kind),
        torch.empty(0),
        torch.arange(3),
    )
    path = tmp_path / "x.safetensors"
    write(path, tensors)
    held = (
        [
            name
            for name in ("first", "last", "middle")
            if not torch.view_as_real(tensors[name]).isfinite().all()
        ]
        if (kind.is_complex)
        else [n for n in ("first", "last", "middle") if not tensors[n].float().isfinite().all()]
    )
    assert sorted(open_checkpoint(path).check_finite()) == held
    assert held or dtype == "F8_E4M3", "that type has no infinity"


def test_the_largest_values_are_numbers(tmp_path: Path) -> None:
    tensors = {}
    for name in FLOATS:
        if not DTYPES[name].is_complex:
            info = torch.finfo(DTYPES[name])
            tensors[name] = torch.tensor([info.max, info.min, info.tiny], dtype=torch.float64).to(
                DTYPES[name]
            )
    write(tmp_path / "x.safetensors", tensors)
    assert open_checkpoint(tmp_path / "x.safetensors").check_finite() == []


def test_views_that_are_not_contiguous_are_looked_through(tmp_path: Path) -> None:
    base = torch.randn(2000, 1100)
    base[1999, 1099] = float("nan")
    torch.save({"good": base[:, :1099].t(), "bad": base.t()[1099:]}, tmp_path / "x.bin")
    assert open_checkpoint(tmp_path / "x.bin").check_finite() == ["bad"]


@pytest.mark.parametrize("kind", [name for name in FORMATS if name not in ("F16", "BF16")])
@pytest.mark.parametrize("bad", [0x7C00, 0xFC00, 0x7E00])
def test_each_scale_that_is_no_number_is_found(tmp_path: Path, kind: str, bad: int) -> None:
    """Beside gguf-py: a tensor is named if and only if its dequantised values hold one."""
    fmt, number = FORMATS[kind], gguf.GGMLQuantizationType[kind]
    file = Gguf()
    for place in (
        None,
        *((row, block, at) for row in (0, 2) for block in (0, 3) for at in HALF_FIELDS[kind]),
    ):
        raw = packed(fmt, 3, 4 * fmt.block, seed=7).numpy().reshape(3, 4, fmt.nbytes).copy()
        if place is not None:
            row, block, at = place
            raw[row, block, at : at + 2] = (bad & 0xFF, bad >> 8)
        file.tensors.append(GgufTensor(str(place), (3, 4 * fmt.block), int(number), raw.tobytes()))
    (tmp_path / "x.gguf").write_bytes(file.build())
    with np.errstate(all="ignore"):
        want = [
            each.name
            for each in file.tensors
            if not np.isfinite(
                gguf.quants.dequantize(np.frombuffer(each.data, np.uint8).reshape(3, -1), number)
            ).all()
        ]
    assert len(want) >= 4
    assert open_checkpoint(tmp_path / "x.gguf").check_finite() == want
