"""A row's product is the same, to the last bit, whatever is computed beside it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from bestiary.formats import FORMATS, get
from bestiary.kernels import matmul, native
from bestiary.kernels.matmul import packed_linear
from tests.packed import packed

# One vector, those that are multiplied a few at a time, and around the tiles that many are cut into.
COUNTS = (1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 18, 19, 37, 64, 200)


@pytest.fixture(params=native.isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set of this processor in turn."""
    library = native.library()
    before = library.isa
    library.use_isa(request.param)
    yield request.param
    library.use_isa(before)


def product(x: Tensor, weight: Tensor, name: str, bias: Tensor | None = None) -> Tensor:
    with matmul.linear.forced("native"):
        return packed_linear(x, weight, get(name), bias)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("blocks", [1, 3, 37])
def test_any_number_of_vectors_beside_it(isa: str, name: str, blocks: int) -> None:
    fmt = get(name)
    columns, rows = blocks * max(fmt.block, 32), 23
    weight, bias = packed(fmt, rows, columns), torch.randn(rows)
    x = torch.randn(max(COUNTS), columns)
    alone = torch.stack([product(row, weight, name, bias) for row in x])
    for count in COUNTS:
        assert torch.equal(product(x[:count], weight, name, bias), alone[:count]), count
        assert torch.equal(product(x[-count:], weight, name, bias), alone[-count:]), count


@pytest.mark.parametrize("name", ["F16", "BF16"])
@pytest.mark.parametrize("columns", [1, 7, 16, 31, 33, 100, 127, 1000, 1537, 4096, 4101, 9000])
def test_any_number_of_columns(isa: str, name: str, columns: int) -> None:
    weight, x = packed(get(name), 9, columns), torch.randn(13, columns)
    together = product(x, weight, name)
    assert torch.equal(together, torch.stack([product(row, weight, name) for row in x]))
    want = x.double() @ get(name).decode(weight).double().T
    assert ((together - want).abs() <= 8 * 2**-24 * (x.abs() @ get(name).decode(weight).abs().T)).all()


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 9, 130])
def test_any_number_of_rows_and_threads(isa: str, rows: int) -> None:
    """Rows are dealt out otherwise for each number of threads, and of rows."""
    weight, x = packed(get("Q4_1"), rows, 4096 + 160), torch.randn(19, 4096 + 160)
    want = torch.cat([product(x, row[None], "Q4_1") for row in weight], -1)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            for count in (1, 2, 4, 19):
                assert torch.equal(product(x[:count], weight, "Q4_1"), want[:count])
    finally:
        torch.set_num_threads(before)


def test_vectors_that_are_not_numbers_keep_to_themselves(isa: str) -> None:
    weight, x = packed(get("Q8_0"), 40, 96), torch.randn(30, 96)
    want = product(x, weight, "Q8_0")
    x[5], x[17, 3] = torch.inf, torch.nan
    others = torch.ones(30, dtype=torch.bool)
    others[[5, 17]] = False
    got = product(x, weight, "Q8_0")
    assert torch.equal(got[others], want[others])
    assert got[17].isnan().all()
