"""RMSNorm in C against float64, on every instruction set, and where it leaves the work to torch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bestiary.kernels import native
from bestiary.models import Decoder
from bestiary.quant.fused import FusedRMSNorm, fuse

KNOWN = ["AVX-512", "AVX2", "plain C"]


@pytest.fixture(params=KNOWN)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set; the best that there is where this machine lacks one."""
    library, here = native.library(), native.library().isa
    library.use_isa(max(request.param, here, key=KNOWN.index))
    yield library.isa
    library.use_isa(here)


def norm_of(width: int, eps: float = 1e-5) -> FusedRMSNorm:
    plain = nn.RMSNorm(width, eps)
    nn.init.normal_(plain.weight, 1.0, 0.3)
    return FusedRMSNorm(plain)


@pytest.mark.parametrize("shape", [(1, 1, 576), (3, 7), (1, 63), (2, 40, 512), (5, 1), (300, 1537)])
def test_it_is_float64_rounded_once(isa: str, shape: tuple[int, ...]) -> None:
    """Within three roundings of float32: of the scale, of x times it, and of that times the weight."""
    norm, x = norm_of(shape[-1]), torch.randn(shape) * 100
    x[..., 0] *= 1000  # a few channels that carry nearly all of the sum
    with torch.inference_mode():
        got = norm(x)
    want = F.rms_norm(x.double(), (shape[-1],), norm.weight.double(), norm.eps)
    assert ((got - want).abs() <= 3 * 2**-24 * want.abs()).all()


def test_zeros_and_what_is_not_finite(isa: str) -> None:
    norm = norm_of(40)
    x = torch.zeros(4, 40)
    x[1, 3], x[2, 39] = float("nan"), float("inf")
    with torch.inference_mode():
        got, want = norm(x), F.rms_norm(x, (40,), norm.weight, norm.eps)
    torch.testing.assert_close(got, want, equal_nan=True)


def test_norms_of_another_kind_are_left_alone() -> None:
    kinds = [nn.RMSNorm(8), nn.RMSNorm(8, 1e-6, elementwise_affine=False), nn.RMSNorm((8, 8), 1e-6)]
    model = Decoder(
        nn.Embedding(9, 8), [nn.Sequential(*kinds), nn.RMSNorm(8, 1e-6)], nn.LayerNorm(8), nn.Identity()
    )
    assert fuse(model) == 0
    assert [m for m in model.modules() if isinstance(m, nn.RMSNorm) and type(m) is not FusedRMSNorm] == kinds
    assert type(model.layers[1]) is FusedRMSNorm


@pytest.mark.parametrize("case", ["grad", "bfloat16", "strides"])
def test_what_c_does_not_take_goes_to_torch(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    norm, x = norm_of(48), torch.randn(6, 48)
    monkeypatch.setattr(native.library(), "rms_norm", None)
    if case == "bfloat16":
        norm, x = norm.bfloat16(), x.bfloat16()
    if case == "strides":
        x = torch.randn(48, 6).T
    with torch.set_grad_enabled(case == "grad"):
        y = norm(x)
    torch.testing.assert_close(y, F.rms_norm(x, (48,), norm.weight, norm.eps))
    assert y.requires_grad == (case == "grad")
