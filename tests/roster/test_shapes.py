"""shapes.json: a row for every published checkpoint, and what it says is what is built."""

from __future__ import annotations

import pytest

from bestiary.roster.published import Published, published
from bestiary.roster.published.shapes import Moment, Shape, shape
from tools import shapes

ROWS = list(published())
# One of each kind; all of them are derived anew in the nightly tests.
SOME = (
    "HuggingFaceTB/SmolLM2-135M-Instruct", "THUDM/chatglm2-6b", "tiiuae/falcon-7b", "bigscience/bloom-560m",
    "gpt2", "google-t5/t5-small",
)  # fmt: skip


def test_there_is_a_row_for_each_as_it_is_now() -> None:
    kept = shapes.known()
    missing = [row.ids[0] for row in ROWS if shapes.digest(row) not in kept]
    assert not missing, f"run `python -m tools.shapes`: {missing}"
    for row in ROWS:
        assert all(shape(id) is not None for id in row.ids)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.ids[0])
def test_it_has_the_published_parameters(row: Published) -> None:
    found = shape(row.ids[0])
    assert found is not None
    assert found.params == row.params
    assert 0 < found.matrices <= found.params
    assert 0 <= found.odd <= found.matrices
    assert 0 < found.read <= found.params
    assert (found.kind == "encoder") == (found.cache == 0)
    assert all((found.step, found.half, found.full, found.lora))


@pytest.mark.parametrize("row", [row for row in ROWS if set(row.ids) & {*SOME}], ids=lambda row: row.ids[0])
def test_it_is_what_is_built(row: Published) -> None:
    assert shapes.derived(row)["shape"] == shapes.known()[shapes.digest(row)]["shape"]


@pytest.mark.nightly
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.ids[0])
def test_each_is_what_is_built(row: Published) -> None:
    assert shapes.derived(row)["shape"] == shapes.known()[shapes.digest(row)]["shape"]


def test_a_row_is_read_as_it_was_written() -> None:
    found = shape(ROWS[0].ids[0])
    assert found is not None
    assert Shape.read_from(found.row()) == found


def test_a_moment_is_a_polynomial_with_the_tiles_of_attention() -> None:
    plain = Moment(5, 3, 2, 1, 4)
    assert plain.nbytes(10, 20, threads=8) == 5 + 30 + 40 + 200 + 400
    # 32 queries by 64 keys, their sums, and 8 channels a query, in float32, for each of two threads.
    tiled = Moment(0, 0, 0, 0, 0, 8)
    assert tiled.nbytes(40, 64, threads=2) == 2 * 4 * 32 * (64 + 2 + 8)
    assert tiled.nbytes(512, 2048, threads=1) == 4 * 64 * (512 + 2 + 8)
    assert tiled.nbytes(1, 1, threads=1) == 4 * (1 + 2 + 8)
