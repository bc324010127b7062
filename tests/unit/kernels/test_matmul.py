"""Products with packed matrices against the same product in float64 of what gguf-py decodes."""

from __future__ import annotations

import gguf
import pytest
import torch
from torch import Tensor

from bestiary.errors import KernelError
from bestiary.formats import FORMATS, Format, get
from bestiary.kernels import matmul
from bestiary.kernels.matmul import packed_decode, packed_linear
from tests.packed import packed

NAMES = list(FORMATS)


def exact(weight: Tensor, fmt: Format) -> Tensor:
    """The matrix in float64, decoded by gguf-py."""
    kind = gguf.GGMLQuantizationType[fmt.name]
    return torch.from_numpy(gguf.quants.dequantize(weight.numpy(), kind)).double()


def assert_product(y: Tensor, x: Tensor, weight: Tensor, fmt: Format, bias: Tensor | None = None) -> None:
    """Equal to the float64 product within the bound of a float32 sum: columns * 2**-24 * sum |x||w| (Higham,
    "Accuracy and Stability of Numerical Algorithms", 3.1; blocked sums stay far below it)."""
    w = exact(weight, fmt)
    want = x.double() @ w.T + (0 if bias is None else bias.double())
    bound = (x.double().abs() @ w.abs().T + (0 if bias is None else bias.double().abs())) * 2**-24
    limit = bound * max(8.0, x.shape[-1] ** 0.5) + 1e-30
    assert y.shape == want.shape
    worst = ((y.double() - want).abs() / limit).max().item() if y.numel() else 0.0
    assert worst <= 1, f"{worst:.3g} times the bound"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 17])
def test_every_format_and_number_of_rows(name: str, rows: int) -> None:
    fmt = get(name)
    weight = packed(fmt, 37, 3 * max(fmt.block, 32))
    x = torch.randn(rows, 3 * max(fmt.block, 32))
    bias = torch.randn(37)
    assert_product(packed_linear(x, weight, fmt), x, weight, fmt)
    assert_product(packed_linear(x, weight, fmt, bias), x, weight, fmt, bias)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 9), (64, 2), (129, 7), (2, 23)])
def test_every_shape(name: str, shape: tuple[int, int]) -> None:
    fmt = get(name)
    rows, blocks = shape
    weight = packed(fmt, rows, blocks * fmt.block, seed=rows)
    for count in (1, 4, 11):
        x = torch.randn(count, blocks * fmt.block)
        assert_product(packed_linear(x, weight, fmt), x, weight, fmt)
    assert torch.equal(packed_decode(weight, fmt).double(), exact(weight, fmt))


def test_leading_dimensions_and_empty_batches() -> None:
    fmt = get("Q4_1")
    weight = packed(fmt, 24, 64)
    x = torch.randn(2, 3, 1, 64)
    y = packed_linear(x, weight, fmt)
    assert y.shape == (2, 3, 1, 24)
    torch.testing.assert_close(y[1, 2], packed_linear(x[1, 2], weight, fmt))
    assert packed_linear(x[0, 0, 0], weight, fmt).shape == (24,)
    for empty in (torch.zeros(0, 64), torch.zeros(2, 0, 64)):
        assert packed_linear(empty, weight, fmt).shape == (*empty.shape[:-1], 24)
    assert packed_linear(torch.ones(3, 64), weight[:0], fmt).shape == (3, 0)


def test_strided_arguments() -> None:
    fmt = get("Q8_0")
    weight = packed(fmt, 40, 128)
    for x in (
        torch.randn(128, 6).T,
        torch.randn(3, 256)[:, ::2],
        torch.randn(1, 128).expand(5, -1),
    ):
        assert_product(packed_linear(x, weight, fmt), x, weight, fmt)
    wide = torch.cat([weight, weight], dim=1)
    x = torch.randn(1, 128)
    assert_product(packed_linear(x, wide[:, : weight.shape[1]], fmt), x, weight, fmt)
    assert_product(packed_linear(x, weight[::2], fmt), x, weight[::2], fmt)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("rows", [1, 9])
def test_other_dtypes_accumulate_in_float32_and_round_once(dtype: torch.dtype, rows: int) -> None:
    fmt = get("Q4_K")
    weight, x = packed(fmt, 30, 512), torch.randn(rows, 512, dtype=dtype)
    y = packed_linear(x, weight, fmt)
    want = x.double() @ exact(weight, fmt).T
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), want, rtol=2 * torch.finfo(dtype).eps, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 3, 12])
def test_large_matrices_are_taken_in_tiles(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matmul, "_TILE", 1000)
    fmt = get("Q5_1")
    weight, x, bias = packed(fmt, 101, 96), torch.randn(rows, 96), torch.randn(101)
    for name in [kernel.name for kernel in matmul.linear.kernels]:
        with matmul.linear.forced(name):
            assert_product(packed_linear(x, weight, fmt, bias), x, weight, fmt, bias)


def test_gradients_are_those_of_the_decoded_matrix() -> None:
    fmt = get("Q4_0")
    weight = packed(fmt, 20, 64)
    x, bias = torch.randn(2, 3, 64, requires_grad=True), torch.randn(20, requires_grad=True)
    plain_x, plain_bias = x.detach().clone().requires_grad_(), bias.detach().clone().requires_grad_()
    packed_linear(x, weight, fmt, bias).square().sum().backward()
    torch.nn.functional.linear(plain_x, fmt.decode(weight), plain_bias).square().sum().backward()
    torch.testing.assert_close(x.grad, plain_x.grad)
    torch.testing.assert_close(bias.grad, plain_bias.grad)


def test_what_does_not_fit_is_refused_with_both_shapes() -> None:
    fmt = get("Q4_1")
    weight = packed(fmt, 24, 64)
    with pytest.raises(KernelError, match=r"\(2, 96\).*Q4_1.*\(24, 40\).*64 columns"):
        packed_linear(torch.zeros(2, 96), weight, fmt)
    with pytest.raises(KernelError, match=r"\(2, 65\).*\(24, 40\)"):
        packed_linear(torch.zeros(2, 65), weight, fmt)
    with pytest.raises(KernelError, match=r"bias of \(23,\)"):
        packed_linear(torch.zeros(2, 64), weight, fmt, torch.zeros(23))
    with pytest.raises(KernelError, match=r"int8"):
        packed_linear(torch.zeros(2, 64), weight.to(torch.int8), fmt)
    with pytest.raises(KernelError, match="floating point"):
        packed_linear(torch.zeros(2, 64, dtype=torch.int64), weight, fmt)
    with pytest.raises(KernelError, match=r"\(\)"):
        packed_linear(torch.zeros(()), weight, fmt)
