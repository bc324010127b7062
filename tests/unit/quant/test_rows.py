"""Rows with a scale each, against the recipe written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bestiary.errors import ConfigError
from bestiary.formats import get
from bestiary.quant.linear import PackedLinear
from bestiary.quant.rows import HalfRowScaled, RowScaled
from tests.packed import packed


def by_hand(weight: Tensor, bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scales, integers and packed bytes, element by element."""
    most = 2 ** (bits - 1) - 1
    half = weight.numpy().astype(np.float16)
    scale = (np.abs(half).max(1) / np.float16(most)).astype(np.float16)
    q = np.rint(half / scale[:, None]).astype(np.int8)  # rint: half to even
    if bits == 8:
        return scale, q, q
    words = np.zeros((q.shape[0], q.shape[1] // 2), dtype=np.uint8)
    for row, column in np.ndindex(words.shape):
        high, low = int(q[row, 2 * column]), int(q[row, 2 * column + 1])
        words[row, column] = (high % 16) * 16 + low % 16
    return scale, q, words.view(np.int8)


@pytest.mark.parametrize("bits", [8, 4])
def test_the_published_recipe(bits: int) -> None:
    linear = nn.Linear(38, 21)
    module = RowScaled.of(linear, bits=bits)
    scale, q, stored = by_hand(linear.weight.detach(), bits)
    assert np.array_equal(module.weight_scale.numpy(), scale)
    assert np.array_equal(module.weight.numpy(), stored)
    assert np.array_equal(module.integers().numpy(), q)
    assert np.abs(q).max() == 2 ** (bits - 1) - 1
    exact = q.astype(np.float32) * scale.astype(np.float32)[:, None]
    assert np.array_equal(module.dequantize().numpy(), exact)
    rounded = HalfRowScaled.of(linear, bits=bits).dequantize()
    assert np.array_equal(rounded.numpy(), exact.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("bits", [8, 4])
def test_a_product_of_stripes(bits: int) -> None:
    module = RowScaled.of(nn.Linear(16, 2500), bits=bits)
    x = torch.randn(2, 3, 16, requires_grad=True)
    y = module(x)
    want = F.linear(x, module.dequantize(), module.bias)
    assert (y - want).abs().max() <= 1e-6
    y.sum().backward()
    assert x.grad is not None
    assert (x.grad - module.dequantize().sum(0)).abs().max() <= 1e-4
    assert module(x.detach().bfloat16()).dtype == torch.bfloat16


def test_pieces_of_a_row_have_scales_of_their_own() -> None:
    pieces = [RowScaled.of(nn.Linear(6, 5, bias=False), bits=4) for _ in range(3)]
    whole = RowScaled(18, 5, bits=4, pieces=3)
    whole.weight = torch.cat([piece.weight for piece in pieces], 1)
    whole.weight_scale = torch.stack([piece.weight_scale for piece in pieces], 1)
    assert torch.equal(whole.dequantize(), torch.cat([piece.dequantize() for piece in pieces], 1))


def test_a_row_of_zeros_and_a_packed_layer() -> None:
    linear = nn.Linear(8, 3)
    nn.init.zeros_(linear.weight)
    assert not RowScaled.of(linear).dequantize().any()
    half = PackedLinear(32, 4, get("F16"))
    half.weight = packed(get("F16"), 4, 32)
    error = (RowScaled.of(half).dequantize() - half.dequantize()).abs().amax(1)
    assert (error <= half.dequantize().abs().amax(1) / 127).all()


@pytest.mark.parametrize(("columns", "bits", "pieces"), [(8, 3, 1), (7, 4, 1), (6, 4, 2), (9, 8, 2)])
def test_sizes_that_do_not_fit(columns: int, bits: int, pieces: int) -> None:
    with pytest.raises(ConfigError, match=r"bits"):
        RowScaled(columns, 3, bits=bits, pieces=pieces)
