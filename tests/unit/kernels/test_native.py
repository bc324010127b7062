"""The C kernels, on every instruction set that this processor has, against the reference in torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bestiary.errors import KernelError
from bestiary.formats import FORMATS, get
from bestiary.kernels import matmul, native
from bestiary.kernels.matmul import packed_decode, packed_linear
from tests.packed import HALF_FIELDS, packed

NAMES = list(FORMATS)
ISAS = ("AVX-512", "AVX2", "plain C")


def _available() -> list[str]:
    library, here = native.library(), native.library().isa
    found = list(ISAS[ISAS.index(here) :])
    for name in found:
        library.use_isa(name)
    library.use_isa(here)
    return found


@pytest.fixture(params=_available())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set in turn."""
    library = native.library()
    before = library.isa
    library.use_isa(request.param)
    assert library.isa == request.param
    yield request.param
    library.use_isa(before)


def assert_same_bits(got: Tensor, want: Tensor) -> None:
    """Equal bit for bit, but any two NaN are equal."""
    same = (got.view(torch.int32) == want.view(torch.int32)) | (got.isnan() & want.isnan())
    assert got.shape == want.shape
    assert same.all(), f"{(~same).sum()} of {same.numel()} differ"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("rows", "blocks"), [(1, 1), (5, 3), (70, 17)])
def test_decoding_equals_the_reference_to_the_last_bit(isa: str, name: str, rows: int, blocks: int) -> None:
    fmt = get(name)
    raw = torch.randint(0, 256, (rows, blocks * fmt.nbytes), dtype=torch.uint8)
    with matmul.decode.forced("native"):
        assert_same_bits(packed_decode(raw, fmt), fmt.decode(raw))


@pytest.mark.parametrize("name", NAMES)
def test_odd_scales_decode_as_in_the_reference(isa: str, name: str) -> None:
    fmt = get(name)
    halves = torch.tensor(
        [0, 0x8000, 1, 0x8001, 0x3FF, 0x400, 0x3C00, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00]
    )
    pairs = torch.cartesian_prod(halves, halves)
    raw = torch.randint(0, 256, (len(pairs), fmt.nbytes), dtype=torch.uint8)
    for at, column in zip(HALF_FIELDS[name], pairs.T, strict=False):
        raw[:, at], raw[:, at + 1] = (column & 0xFF).to(torch.uint8), (column >> 8).to(torch.uint8)
    with matmul.decode.forced("native"):
        assert_same_bits(packed_decode(raw, fmt), fmt.decode(raw))


@pytest.mark.parametrize("name", NAMES)
def test_products_of_one_to_many_vectors(isa: str, name: str) -> None:
    """Against float64, within 8 roundings of the sum of magnitudes: sixteen partial sums or more."""
    fmt = get(name)
    columns = 5 * max(fmt.block, 32)
    weight = packed(fmt, 43, columns)
    wide = fmt.decode(weight).double()
    for count in (*range(1, 18), 40):
        x, bias = torch.randn(count, columns), torch.randn(43)
        with matmul.linear.forced("native"):
            y = packed_linear(x, weight, fmt, bias)
        bound = (x.double().abs() @ wide.abs().T + bias.abs()) * 8 * 2**-24
        assert ((y.double() - (x.double() @ wide.T + bias)).abs() <= bound).all()


@pytest.mark.parametrize("name", ["F16", "BF16"])
@pytest.mark.parametrize("columns", [1, 15, 17, 31, 33, 100])
def test_plain_floats_have_any_number_of_columns(isa: str, name: str, columns: int) -> None:
    fmt = get(name)
    weight, x = packed(fmt, 9, columns), torch.randn(3, columns)
    with matmul.linear.forced("native"), matmul.decode.forced("native"):
        torch.testing.assert_close(packed_linear(x, weight, fmt), x @ fmt.decode(weight).T)
        assert torch.equal(packed_decode(weight, fmt), fmt.decode(weight))


def test_rows_end_where_they_end(isa: str) -> None:
    """No kernel reads a byte or writes a float past its row: the neighbours of a slice stay what they are."""
    for name in NAMES:
        fmt = get(name)
        columns = max(fmt.block, 32)
        weight = packed(fmt, 8, columns)
        x = torch.full((3, columns), float("nan"))
        x[1] = torch.randn(columns)
        y = packed_linear(x, weight, fmt)
        assert y[0].isnan().all()
        torch.testing.assert_close(y[1], fmt.decode(weight) @ x[1], rtol=1e-4, atol=1e-5)
        assert torch.equal(packed_linear(x[1], weight[2:3], fmt), packed_linear(x[1], weight, fmt)[2:3])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_share_the_rows(threads: int) -> None:
    fmt = get("Q4_1")
    weight, x = packed(fmt, 1000, 256), torch.randn(256)
    before = torch.get_num_threads()
    want = fmt.decode(weight) @ x
    torch.set_num_threads(threads)
    try:
        for _ in range(50):
            torch.testing.assert_close(packed_linear(x, weight, fmt), want, rtol=1e-4, atol=1e-5)
    finally:
        torch.set_num_threads(before)


_OWN_THREADS = """
import os, torch
from bestiary.formats import get
from bestiary.kernels import native
from bestiary.kernels.matmul import packed_linear
from tests.packed import packed

native.library()._c.bestiary_use_openmp(None, None, None)
fmt = get("Q8_0")
weight, x = packed(fmt, 1000, 256), torch.randn(256)
want = packed_linear(x, weight, fmt)
for threads in (2, 4, 3, 1, 4):
    torch.set_num_threads(threads)
    for _ in range(100):
        assert torch.equal(packed_linear(x, weight, fmt), want), threads
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(packed_linear(x, weight, fmt), want) else 1)
assert os.waitpid(child, 0)[1] == 0
"""


def test_own_threads_where_there_is_no_openmp() -> None:
    """In a process of its own, because OpenMP is left for good there, and the process forks."""
    run = _python(_OWN_THREADS)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("switch", ["0", "1"])
def test_the_switch_turns_the_library_off(switch: str) -> None:
    code = "from bestiary import kernels; print([(v.kernel, v.note) for v in kernels.explain() if v.serves])"
    run = _python(code, BESTIARY_NATIVE=switch)
    assert run.returncode == 0, run.stderr
    assert ("('native'" in run.stdout) == (switch == "1"), run.stdout


def test_reasons_for_absence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    x, weight, fmt = torch.randn(1, 64), packed(get("Q4_1"), 4, 64), get("Q4_1")
    want = packed_linear(x, weight, fmt)
    broken = tmp_path / "_native.so"
    broken.write_bytes(b"no library")
    with pytest.raises(KernelError, match=r"_native\.so cannot be loaded"):
        native.Library(broken)
    for environment, reason in (({"BESTIARY_NATIVE": "0"}, "BESTIARY_NATIVE=0"), ({}, "not built")):
        with monkeypatch.context() as patch:
            for key, value in environment.items():
                patch.setenv(key, value)
            patch.setattr(native, "__file__", str(tmp_path / "elsewhere" / "native.py"))
            patch.setattr(native, "_load", native._load.__wrapped__)
            first, second = matmul.linear.explain(x, weight, fmt, None)
            assert (first.kernel, first.serves, second.kernel) == ("native", False, "reference")
            assert reason in first.note
            with pytest.raises(KernelError, match=reason):
                native.library()
            torch.testing.assert_close(packed_linear(x, weight, fmt), want)


def test_what_it_does_not_serve_goes_to_the_reference() -> None:
    fmt = get("Q4_1")
    weight, x = packed(fmt, 8, 64), torch.randn(2, 64)
    assert matmul.linear.explain(x.double(), weight, fmt, None)[0].note == "x is torch.float64 on cpu"
    scattered = torch.cat([weight[..., None], weight[..., None]], -1)[..., 0]
    assert "not neighbours" in matmul.linear.explain(x, scattered, fmt, None)[0].note
    torch.testing.assert_close(packed_linear(x, scattered, fmt), packed_linear(x, weight, fmt))
    assert torch.equal(packed_decode(scattered, fmt), packed_decode(weight, fmt))


def _python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parents[3]
    paths = f"{root / 'src'}{os.pathsep}{root}"
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": paths} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
