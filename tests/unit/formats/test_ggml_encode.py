"""Encoders: bit for bit what ggml itself, gguf-py, or ggml's recipe in plain scalar Python gives."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor

from bestiary.files import open_checkpoint
from bestiary.formats import FORMATS, ggml_encode
from tests.goldens import cases

ENCODED = [name for name, fmt in FORMATS.items() if fmt.encode is not None]
f32 = np.float32


def encode(name: str, x: Tensor) -> Tensor:
    made = FORMATS[name].encode
    assert made is not None
    return made(x)


def samples() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    normal = torch.randn(6, 512, generator=random)
    return {
        "normal": normal * 0.02,
        "positive": normal.abs(),
        "negative": -normal.abs(),
        "sparse": torch.where(normal > 1, normal, torch.zeros(())),
        "whole blocks of nothing": torch.where(torch.arange(512) // 32 % 3 > 0, normal, torch.zeros(())),
        "constant": torch.full((2, 512), 0.3),
        "zero": torch.zeros(2, 512),
        "steps": torch.randint(-3, 4, (4, 512), generator=random).float(),
        "halves": torch.arange(-256, 256).float()[None] / 2,
    }


# The reference results of the other types were made with an importance for each element.
@pytest.mark.parametrize("name", ["F16", "BF16", "Q8_0"])
@pytest.mark.parametrize("folder", cases("format-gguf-types"))
def test_as_ggml_made_it(folder: Path, name: str) -> None:
    source = open_checkpoint(folder / "expected.safetensors").entries["source"].read()
    theirs = open_checkpoint(folder / f"{name.lower()}.gguf").entries["weight"].read()
    assert torch.equal(encode(name, source), theirs.contiguous().view(torch.uint8).view(len(source), -1))


@pytest.mark.parametrize("name", ["F16", "BF16", "Q4_0", "Q5_0", "Q8_0"])
@pytest.mark.parametrize("sample", samples())
def test_as_gguf_py_makes_it(name: str, sample: str) -> None:
    x = samples()[sample]
    theirs = gguf.quants.quantize(x.numpy(), gguf.GGMLQuantizationType[name])
    assert encode(name, x).numpy().tobytes() == theirs.tobytes()


@pytest.mark.parametrize("sample", samples())
def test_q4_k_finds_the_scales_that_the_recipe_finds(sample: str) -> None:
    groups = samples()[sample][:2].reshape(-1, 32)
    scale, least = ggml_encode._scale_and_least(groups.mT.contiguous())
    for group, found in zip(groups.numpy(), zip(scale.numpy(), least.numpy(), strict=True), strict=True):
        assert found == scale_and_least(group)


@pytest.mark.parametrize("sample", samples())
def test_q6_k_finds_the_scales_that_the_recipe_finds(sample: str) -> None:
    groups = samples()[sample][:2].reshape(-1, 16)
    scale = ggml_encode._scale(groups.mT.contiguous())
    for group, found in zip(groups.numpy(), scale.numpy(), strict=True):
        assert found == only_scale(group)


def scale_and_least(x: np.ndarray) -> tuple[np.float32, np.float32]:
    """make_qkx2_quants with 16 levels, one float32 operation after another."""
    squares = f32(0)
    for value in x:
        squares = squares + value * value
    weights = np.sqrt(squares / f32(32)) + np.abs(x)
    total, weighted = weights[0], weights[0] * x[0]
    for value, w in zip(x[1:], weights[1:], strict=True):
        total, weighted = total + w, weighted + w * value
    most, least = x.max(), min(x.min(), f32(0))
    if most == least:
        return f32(0), -least
    scale = f32(1) / (f32(15) / (most - least))
    best = None
    for step in (None, *range(21)):
        width = f32(15) if step is None else f32(-1) + f32(0.1) * f32(step) + f32(15)
        q = np.rint(width / (most - least) * (x - least)).clip(0, 15)
        found, lowest = scale, least
        if step is not None:
            of_q = of_qq = of_qx = f32(0)
            for value, w, n in zip(x, weights, q, strict=True):
                of_q, of_qq, of_qx = of_q + w * n, of_qq + w * n * n, of_qx + w * n * value
            determinant = total * of_qq - of_q * of_q
            if not determinant > 0:
                continue
            found = (total * of_qx - weighted * of_q) / determinant
            lowest = (of_qq * weighted - of_q * of_qx) / determinant
            if lowest > 0:
                found, lowest = of_qx / of_qq, f32(0)
        error = f32(0)
        for value, w, n in zip(x, weights, q, strict=True):
            apart = found * n + lowest - value
            error = error + w * (apart * apart)
        if best is None or error < best:
            best, scale, least = error, found, lowest
    return scale, -least


def only_scale(x: np.ndarray) -> np.float32:
    """make_qx_quants with 64 levels, one float32 operation after another."""
    largest = x[np.abs(x).argmax()]
    if abs(largest) < 1e-15:
        return f32(0)
    scale, best = f32(0), f32(0)
    for step in (0, *range(-9, 0), *range(1, 10)):
        q = np.rint(-(f32(32) + f32(0.1) * f32(step)) / largest * x).clip(-32, 31)
        of_qx = of_qq = f32(0)
        for value, n in zip(x, q, strict=True):
            of_qx, of_qq = of_qx + value * value * value * n, of_qq + value * value * n * n
        if of_qq > 0 and (step == 0 or of_qx * of_qx > best * of_qq):
            scale = of_qx / of_qq
            best = scale * of_qx
    return scale


@pytest.mark.parametrize("name", ENCODED)
def test_leading_dimensions_and_long_rows_come_back(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 3, 512, generator=torch.Generator().manual_seed(1))
    made = encode(name, x)
    assert made.shape == (2, 3, FORMATS[name].row_bytes(512))
    monkeypatch.setattr(ggml_encode, "_CHUNK", 512)
    assert torch.equal(encode(name, x.mT.contiguous().mT), made)


@pytest.mark.parametrize("name", ENCODED)
def test_what_was_decoded_comes_back_nearly(name: str) -> None:
    x = torch.randn(8, 1024, generator=torch.Generator().manual_seed(2))
    apart = (FORMATS[name].decode(encode(name, x)) - x).square().mean().sqrt()
    assert apart < {"Q4_0": 0.1, "Q5_0": 0.05, "Q4_K": 0.08, "Q6_K": 0.03, "Q8_0": 0.01}.get(name, 0.002)
