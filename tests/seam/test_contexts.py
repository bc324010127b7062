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
from tests.subjects import DECODERS, ENCODER_DECODERS, ENCODERS, WRITERS, Subject

TOKENS, ROWS = 21, 3
# What writes grows a token at a time; a text that an encoder reads is there whole.
writers = pytest.mark.parametrize("it", WRITERS, indirect=True)


def assert_same(got: Tensor, want: Tensor) -> None:
    assert got.shape == want.shape
    assert (got - want).abs().max() <= 1e-4, (got - want).abs().max()


CUTS = {"whole": (0, 21), "chunks": (0, 6, 7, 8, 9, 21), "single": tuple(range(22))}


def whole_prefix(begin: Prompt, cuts: tuple[int, ...]) -> tuple[int, ...]:
    """Leave out the cuts through a prefix whose tokens all see each other."""
    prefix = 0 if begin.prefix is None else int(begin.prefix.max())
    return (0, *(cut for cut in cuts if cut >= max(prefix, 1)))


@writers
@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
def test_stream(it: Subject, cuts: tuple[int, ...]) -> None:
    ids = it.tokens(ROWS, TOKENS)
    cache, begin = Cache.empty(it.model, ROWS, TOKENS), it.prompt(ids)
    with torch.inference_mode():
        steps = pairwise(whole_prefix(begin, cuts))
        pieces = [it.model(ids[:, a:b], Stream.at(cache, a, b - a, begin)) for a, b in steps]
    assert_same(torch.cat(pieces, 1), it.logits(ids))


@writers
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


@writers
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
    """Rows padded on either side, with positions that start at their first real token."""
    spans = ((5, TOKENS), (4, 16), (0, TOKENS))
    alone = [it.tokens(1, end - start) for start, end in spans]
    ids, seen = torch.zeros(ROWS, TOKENS, dtype=torch.int64), torch.zeros(ROWS, TOKENS, dtype=torch.bool)
    for row, ((start, end), own) in enumerate(zip(spans, alone, strict=True)):
        ids[row, start:end], seen[row, start:end] = own[0], True
    with torch.inference_mode():
        got = it.model(ids, Full.of(ids, seen, it.prompt(ids, seen)))
    for row, ((start, end), own) in enumerate(zip(spans, alone, strict=True)):
        assert_same(got[row : row + 1, start:end], it.logits(own))


# Whose positions or masks follow from a whole prompt: such a prompt has a row to itself.
READERS = ("chatglm1-6b", "glm130b", "qwen-7b-long")


# Of several documents in one row; the answers in a row are to one source.
PACKED = [name for name in (*DECODERS, *ENCODERS) if name not in READERS]


@pytest.mark.parametrize("it", PACKED, indirect=True)
def test_packed_documents_do_not_see_each_other(it: Subject) -> None:
    first, second = it.tokens(1, 8), it.tokens(1, 13)
    document = torch.tensor([0] * 8 + [1] * 13)
    positions = torch.cat((torch.arange(8), torch.arange(13)))[None]
    with torch.inference_mode():
        ctx = Full(positions, (document[:, None] == document)[None], it.prompt(first))
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
    """Mixed lengths, chunked prefill beside decode, pages in any order; whole texts beside each other."""
    rows = [it.tokens(1, n)[0] for n in (21, 6, 13)]
    order = torch.randperm(6 + 2 + 4 + 3)
    schedule = [[8, 6, 6], [8, 0, 4], *[[1, 0, 1]] * 3, *[[1, 0, 0]] * 2]
    if it.whole:
        schedule = [[0, 6, 13], [21, 0, 0]]
    for got, ids in zip(paged(it, rows, schedule, 4, order), rows, strict=True):
        assert_same(got, it.logits(ids[None])[0])


def test_only_the_picked_positions_reach_the_head(it: Subject) -> None:
    ids = it.tokens(ROWS, TOKENS)
    with torch.inference_mode():
        got = it.model(ids, Full.of(ids, None, it.prompt(ids)), (slice(None), -1))
    assert_same(got, it.logits(ids)[:, -1])


@writers
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


@pytest.mark.parametrize("it", ENCODERS, indirect=True)
def test_a_text_compiles_without_breaks(it: Subject) -> None:
    """One graph serves every batch of a shape, padded on either side."""
    torch._dynamo.reset()
    counter = CompileCounter()
    begin = it.prompt(it.tokens(ROWS, TOKENS))
    read: Callable[[Tensor, Tensor], Tensor] = torch.compile(
        lambda ids, seen: it.model(ids, Full.of(ids, seen, begin)), backend=counter, fullgraph=True
    )
    for start, end in ((3, TOKENS), (0, 15), (0, TOKENS)):
        ids, seen = it.tokens(ROWS, TOKENS), torch.zeros(ROWS, TOKENS, dtype=torch.bool)
        seen[:, start:end] = True
        with torch.inference_mode():
            assert_same(read(ids, seen)[:, start:end], it.logits(ids[:, start:end]))
    assert counter.frame_count == 1


@pytest.mark.parametrize("it", ENCODER_DECODERS, indirect=True)
def test_beams_share_their_source(it: Subject) -> None:
    """Rows in turn answer one source that is encoded once, all at once and a token at a time."""
    ids, beams = it.tokens(6, TOKENS), 3
    ids[:, 0] = ids[::beams, 0].repeat_interleave(beams)
    begin, want = it.prompt(ids[::beams]).repeated(beams), it.logits(ids)
    cache = Cache.empty(it.model, len(ids), TOKENS)
    with torch.inference_mode():
        assert_same(it.model(ids, Full.of(ids, None, begin)), want)
        for at in range(TOKENS):
            assert_same(it.model(ids[:, at : at + 1], Stream.at(cache, at, 1, begin)), want[:, at : at + 1])
    assert begin.memory is not None
    assert len(begin.memory.states) == len(ids) // beams


@pytest.mark.parametrize("it", ["bart"], indirect=True)
def test_answers_that_do_not_divide_among_sources_are_refused(it: Subject) -> None:
    """Their queries could be cut into as many rows as there are sources, and some see the wrong one."""
    ids, begin = it.tokens(3, 4), it.prompt(it.tokens(2, 4))
    alone, pages = Cache.empty(it.model, 1, 4), Pool.empty(it.model, 1, 4)
    for rows, ctx in (
        (ids, Full.of(ids, None, begin)),
        (ids[:1], Stream.at(alone, 0, 4, begin)),
        (ids[0], Paged(torch.arange(4), pages, [(0, 4)], [torch.tensor([0])], [begin])),
    ):
        with torch.inference_mode(), pytest.raises(RequestError, match="cannot share 2 sources evenly"):
            it.model(rows, ctx)


@pytest.mark.parametrize("it", ["bart", "bert", "gpt2", "opt", "roberta"], indirect=True)
def test_a_position_that_was_not_learned_is_refused(it: Subject) -> None:
    most = it.loaded.context
    it.logits(it.tokens(1, most))
    with pytest.raises(RequestError, match=f"{most + 1} tokens are more than the {most} positions"):
        it.logits(it.tokens(1, most + 1))
