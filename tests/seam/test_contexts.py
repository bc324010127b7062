"""One model object, every context: the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from bestiary.context import Cache, Full, Paged, Pool, Stream
from bestiary.errors import RequestError
from bestiary.load import load
from bestiary.models import Decoder
from tests import tiny

# With length-dependent positions, what a token sees depends on when it is asked: see bricks.DynamicNTK.
NAMES = [name for name in tiny.MODELS if name != "llama-dynamic"]
TOKENS, ROWS = 21, 3


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Decoder:
    tiny.make(request.param, tmp_path)
    return load(tmp_path).model


def tokens(rows: int = ROWS, count: int = TOKENS) -> Tensor:
    return torch.randint(tiny.SIZES["vocab_size"], (rows, count))


def full(model: Decoder, ids: Tensor) -> Tensor:
    with torch.inference_mode():
        return model(ids, Full.of(ids))


def assert_same(got: Tensor, want: Tensor) -> None:
    assert (got - want).abs().max() <= 5e-5, (got - want).abs().max()


CUTS = {"whole": (0, 21), "chunks": (0, 6, 7, 8, 9, 21), "single": tuple(range(22))}


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
def test_stream(model: Decoder, cuts: tuple[int, ...]) -> None:
    ids = tokens()
    cache = Cache.empty(model, ROWS, TOKENS)
    with torch.inference_mode():
        pieces = [model(ids[:, a:b], Stream.at(cache, a, b - a)) for a, b in pairwise(cuts)]
    assert_same(torch.cat(pieces, 1), full(model, ids))


def test_stream_of_rows_at_different_places(model: Decoder) -> None:
    ids, starts = tokens(), torch.tensor([3, 11, 7])
    want = full(model, ids)
    cache = Cache.empty(model, ROWS, TOKENS + 5)
    with torch.inference_mode():
        for row, start in enumerate(starts.tolist()):
            alone = Cache([k[row : row + 1] for k in cache.k], [v[row : row + 1] for v in cache.v])
            model(ids[row : row + 1, :start], Stream.at(alone, 0, start))
        for step in range(8):
            positions = (starts + step)[:, None]
            got = model(ids.gather(1, positions), Stream(positions, cache))
            assert_same(got[:, 0], want[torch.arange(ROWS), positions[:, 0]])


def test_growing_a_cache_keeps_it(model: Decoder) -> None:
    ids = tokens(1)
    cache = Cache.empty(model, 1, 10)
    with torch.inference_mode():
        model(ids[:, :10], Stream.at(cache, 0, 10))
        with pytest.raises(RequestError, match="21 tokens do not fit a cache of 10"):
            Stream.at(cache, 10, 11)
        cache.grow(TOKENS)
        got = model(ids[:, 10:], Stream.at(cache, 10, 11))
    assert_same(got, full(model, ids)[:, 10:])


def test_padding_changes_nothing(model: Decoder) -> None:
    """Rows padded on the left, with positions that start at their first real token."""
    ids = tokens()
    seen = torch.ones_like(ids, dtype=torch.bool)
    seen[0, :5] = seen[1, :9] = False
    positions = (seen.cumsum(1) - 1).clamp_min(0)
    with torch.inference_mode():
        got = model(ids, Full(positions, seen))
    for row, pad in enumerate((5, 9, 0)):
        assert_same(got[row : row + 1, pad:], full(model, ids[row : row + 1, pad:]))


def test_packed_documents_do_not_see_each_other(model: Decoder) -> None:
    ids = tokens(1)
    document = torch.tensor([0] * 8 + [1] * 13)
    positions = torch.cat((torch.arange(8), torch.arange(13)))[None]
    with torch.inference_mode():
        got = model(ids, Full(positions, (document[:, None] == document)[None]))
    assert_same(got[:, :8], full(model, ids[:, :8]))
    assert_same(got[:, 8:], full(model, ids[:, 8:]))


def paged(
    model: Decoder, rows: list[Tensor], schedule: list[list[int]], page: int, order: Tensor
) -> list[Tensor]:
    """Run sequences through a pool in steps: schedule[s][r] tokens of row r in step s; order: its pages."""
    need = [-(-len(row) // page) for row in rows]
    tables, at = [], 0
    for n in need:
        tables.append(order[at : at + n])
        at += n
    pool, done = Pool.empty(model, len(order), page), [0] * len(rows)
    out: list[list[Tensor]] = [[] for _ in rows]
    for step in schedule:
        live = [r for r, n in enumerate(step) if n]
        ends = torch.tensor([step[r] for r in live]).cumsum(0).tolist()
        spans = list(zip([0, *ends], ends, strict=False))
        positions = torch.cat([torch.arange(done[r], done[r] + step[r]) for r in live])
        flat = torch.cat([rows[r][done[r] : done[r] + step[r]] for r in live])
        with torch.inference_mode():
            logits = model(flat, Paged(positions, pool, spans, [tables[r] for r in live]))
        for r, (a, b) in zip(live, spans, strict=True):
            out[r].append(logits[a:b])
            done[r] += b - a
    return [torch.cat(pieces) for pieces in out]


def test_paged(model: Decoder) -> None:
    """Mixed lengths, chunked prefill beside decode, pages in any order."""
    rows = [tokens(1, n)[0] for n in (21, 5, 13)]
    order = torch.randperm(6 + 2 + 4 + 3)
    schedule = [[8, 5, 3], [8, 0, 7], *[[1, 0, 1]] * 3, *[[1, 0, 0]] * 2]
    for got, ids in zip(paged(model, rows, schedule, 4, order), rows, strict=True):
        assert_same(got, full(model, ids[None])[0])


def test_only_the_picked_positions_reach_the_head(model: Decoder) -> None:
    ids = tokens()
    with torch.inference_mode():
        got = model(ids, Full.of(ids), (slice(None), -1))
    assert got.shape == (ROWS, tiny.SIZES["vocab_size"])
    assert_same(got, full(model, ids)[:, -1])


def test_a_step_compiles_without_breaks(model: Decoder) -> None:
    """One graph serves every step of a rectangle whose rows stand anywhere."""
    torch._dynamo.reset()
    counter = CompileCounter()
    step: Callable[[Tensor, Tensor, Cache], Tensor] = torch.compile(
        lambda ids, positions, cache: model(ids, Stream(positions, cache)), backend=counter, fullgraph=True
    )
    ids = tokens(1)
    want = full(model, ids)
    cache = Cache.empty(model, 1, TOKENS)
    with torch.inference_mode():
        for at in range(6):
            got = step(ids[:, at : at + 1], torch.tensor([[at]]), cache)
            assert_same(got, want[:, at : at + 1])
    assert counter.frame_count == 1
