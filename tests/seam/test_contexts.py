"""One model object, every context: the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from bestiary.context import Cache, Full, Paged, Pool, Prompt, Stream
from bestiary.errors import RequestError
from bestiary.models import causal
from tests.subjects import NAMES, Subject

TOKENS, ROWS = 21, 3


def assert_same(got: Tensor, want: Tensor) -> None:
    assert got.shape == want.shape
    assert (got - want).abs().max() <= 1e-4, (got - want).abs().max()


CUTS = {"whole": (0, 21), "chunks": (0, 6, 7, 8, 9, 21), "single": tuple(range(22))}


def whole_prefix(begin: Prompt, cuts: tuple[int, ...]) -> tuple[int, ...]:
    """Leave out the cuts through a prefix whose tokens all see each other."""
    prefix = 0 if begin.prefix is None else int(begin.prefix.max())
    return (0, *(cut for cut in cuts if cut >= max(prefix, 1)))


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
def test_stream(it: Subject, cuts: tuple[int, ...]) -> None:
    ids = it.tokens(ROWS, TOKENS)
    cache, begin = Cache.empty(it.model, ROWS, TOKENS), it.prompt(ids)
    with torch.inference_mode():
        steps = pairwise(whole_prefix(begin, cuts))
        pieces = [it.model(ids[:, a:b], Stream.at(cache, a, b - a, begin)) for a, b in steps]
    assert_same(torch.cat(pieces, 1), it.logits(ids))


def test_stream_of_rows_at_different_places(it: Subject) -> None:
    ids, starts = it.tokens(ROWS, TOKENS), torch.tensor([6, 11, 7])
    want, begin = it.logits(ids), it.prompt(ids)
    cache = Cache.empty(it.model, ROWS, TOKENS + 5)
    with torch.inference_mode():
        for row, start in enumerate(starts.tolist()):
            alone = Cache([k[row : row + 1] for k in cache.k], [v[row : row + 1] for v in cache.v])
            own = ids[row : row + 1]
            it.model(own[:, :start], Stream.at(alone, 0, start, it.prompt(own)))
        for step in range(8):
            positions = (starts + step)[:, None]
            got = it.model(ids.gather(1, positions), Stream(positions, cache, None, begin))
            assert_same(got[:, 0], want[torch.arange(ROWS), positions[:, 0]])


def test_growing_a_cache_keeps_it(it: Subject) -> None:
    ids = it.tokens(1, TOKENS)
    cache, begin = Cache.empty(it.model, 1, 10), it.prompt(ids)
    with torch.inference_mode():
        it.model(ids[:, :10], Stream.at(cache, 0, 10, begin))
        with pytest.raises(RequestError, match="21 tokens do not fit a cache of 10"):
            Stream.at(cache, 10, 11)
        cache.grow(TOKENS)
        got = it.model(ids[:, 10:], Stream.at(cache, 10, 11, begin))
    assert_same(got, it.logits(ids)[:, 10:])


def test_padding_changes_nothing(it: Subject) -> None:
    """Rows padded on the left, with positions that start at their first real token."""
    pads = (5, 9, 0)
    alone = [it.tokens(1, TOKENS - pad) for pad in pads]
    ids = torch.cat(
        [
            torch.cat((torch.zeros(1, pad, dtype=torch.int64), a), 1)
            for pad, a in zip(pads, alone, strict=True)
        ]
    )
    seen = torch.arange(TOKENS) >= torch.tensor(pads)[:, None]
    positions = (seen.cumsum(1) - 1).clamp_min(0)
    with torch.inference_mode():
        got = it.model(ids, Full(positions, seen, it.prompt(ids, seen)))
    for row, (pad, own) in enumerate(zip(pads, alone, strict=True)):
        assert_same(got[row : row + 1, pad:], it.logits(own))


# Whose positions or masks follow from a whole prompt: such a prompt has a row to itself.
READERS = ("chatglm1-6b", "glm130b", "qwen-7b-long")


@pytest.mark.parametrize("it", [name for name in NAMES if name not in READERS], indirect=True)
def test_packed_documents_do_not_see_each_other(it: Subject) -> None:
    first, second = it.tokens(1, 8), it.tokens(1, 13)
    document = torch.tensor([0] * 8 + [1] * 13)
    positions = torch.cat((torch.arange(8), torch.arange(13)))[None]
    assert it.model.reader is causal
    with torch.inference_mode():
        ctx = Full(positions, (document[:, None] == document)[None])
        got = it.model(torch.cat((first, second), 1), ctx)
    assert_same(got[:, :8], it.logits(first))
    assert_same(got[:, 8:], it.logits(second))


def paged(
    it: Subject, rows: list[Tensor], schedule: list[list[int]], page: int, order: Tensor
) -> list[Tensor]:
    """Run sequences through a pool in steps: schedule[s][r] tokens of row r in step s; order: its pages."""
    need = [-(-len(row) // page) for row in rows]
    tables, at = [], 0
    for n in need:
        tables.append(order[at : at + n])
        at += n
    pool, done = Pool.empty(it.model, len(order), page), [0] * len(rows)
    begins = [it.prompt(row[None]) for row in rows]
    out: list[list[Tensor]] = [[] for _ in rows]
    for step in schedule:
        live = [r for r, n in enumerate(step) if n]
        ends = torch.tensor([step[r] for r in live]).cumsum(0).tolist()
        spans = list(zip([0, *ends], ends, strict=False))
        positions = torch.cat([torch.arange(done[r], done[r] + step[r]) for r in live])
        flat = torch.cat([rows[r][done[r] : done[r] + step[r]] for r in live])
        ctx = Paged(positions, pool, spans, [tables[r] for r in live], [begins[r] for r in live])
        with torch.inference_mode():
            logits = it.model(flat, ctx)
        for r, (a, b) in zip(live, spans, strict=True):
            out[r].append(logits[a:b])
            done[r] += b - a
    return [torch.cat(pieces) for pieces in out]


def test_paged(it: Subject) -> None:
    """Mixed lengths, chunked prefill beside decode, pages in any order."""
    rows = [it.tokens(1, n)[0] for n in (21, 6, 13)]
    order = torch.randperm(6 + 2 + 4 + 3)
    schedule = [[8, 6, 6], [8, 0, 4], *[[1, 0, 1]] * 3, *[[1, 0, 0]] * 2]
    for got, ids in zip(paged(it, rows, schedule, 4, order), rows, strict=True):
        assert_same(got, it.logits(ids[None])[0])


def test_only_the_picked_positions_reach_the_head(it: Subject) -> None:
    ids = it.tokens(ROWS, TOKENS)
    with torch.inference_mode():
        got = it.model(ids, Full.of(ids, None, it.prompt(ids)), (slice(None), -1))
    assert_same(got, it.logits(ids)[:, -1])


def test_a_step_compiles_without_breaks(it: Subject) -> None:
    """One graph serves every step of a rectangle whose rows stand anywhere."""
    torch._dynamo.reset()
    counter = CompileCounter()
    ids = it.tokens(1, TOKENS)
    begin = it.prompt(ids)
    step: Callable[[Tensor, Tensor, Cache], Tensor] = torch.compile(
        lambda ids, positions, cache: it.model(ids, Stream(positions, cache, None, begin)),
        backend=counter,
        fullgraph=True,
    )
    want, start = it.logits(ids), 6
    cache = Cache.empty(it.model, 1, TOKENS)
    with torch.inference_mode():
        it.model(ids[:, :start], Stream.at(cache, 0, start, begin))
        for at in range(start, start + 6):
            got = step(ids[:, at : at + 1], torch.tensor([[at]]), cache)
            assert_same(got, want[:, at : at + 1])
    assert counter.frame_count == 1
