"""Steps of many sequences: a token has the same bits however it is batched, cut, paged and threaded."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from bestiary.bricks import Heads, Rotary
from bestiary.bricks.positions import DynamicNTK
from bestiary.context import Cache, Paged, Pool, Prompt, Score, Stream
from bestiary.kernels import native
from bestiary.models import Decoder
from bestiary.quant.fused import FusedLinear, fuse, row_independent
from bestiary.swap import swap
from tests.prenorm import LINEARS, VOCAB, decoder, pack

LENGTHS = (1, 37, 150, 290)


@pytest.fixture(params=native.isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set of this processor in turn."""
    library = native.library()
    before = library.isa
    library.use_isa(request.param)
    yield request.param
    library.use_isa(before)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of tokens in each call of C, in order."""
    library, seen = native.library(), list[int]()
    through = library.blocks

    def counted(blocks: object, count: int, tokens: native.Tokens, *rest: object) -> None:
        seen.append(tokens.count)
        through(blocks, count, tokens, *rest)

    monkeypatch.setattr(library, "blocks", counted)
    return seen


def texts(lengths: Sequence[int] = LENGTHS) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(0, VOCAB, (n,), generator=generator) for n in lengths]


@torch.inference_mode()
def stepwise(
    model: Decoder,
    rows: Sequence[Tensor],
    cuts: Sequence[Sequence[int]],
    *,
    page: int = 16,
    begins: Sequence[Prompt] | None = None,
) -> list[Tensor]:
    """Return each text's logits. cuts[i]: where text i is cut; its pieces go into steps 0, 1, ... in turn."""
    need = [-(-len(row) // page) for row in rows]
    order = torch.randperm(sum(need) + 3, generator=torch.Generator().manual_seed(page))
    tables = order[: sum(need)].split(need)
    pool, out = Pool.empty(model, len(order), page), [list[Tensor]() for _ in rows]
    pieces = [list(pairwise(cut)) for cut in cuts]
    for step in range(max(map(len, pieces))):
        live = [i for i, piece in enumerate(pieces) if step < len(piece)]
        parts = [torch.arange(*pieces[i][step]) for i in live]
        ends = torch.tensor([len(part) for part in parts]).cumsum(0).tolist()
        spans = list(pairwise([0, *ends]))
        ctx = Paged(
            torch.cat(parts), pool, spans, [tables[i] for i in live], begins and [begins[i] for i in live]
        )
        logits = model(torch.cat([rows[i][part] for i, part in zip(live, parts, strict=True)]), ctx)
        for i, (a, b) in zip(live, spans, strict=True):
            out[i].append(logits[a:b])
    return [torch.cat(pieces) for pieces in out]


def alone(model: Decoder, rows: Sequence[Tensor]) -> list[Tensor]:
    """Return the logits of each text by itself, in one piece."""
    return [stepwise(model, [row], [[0, len(row)]])[0] for row in rows]


def mixed(lengths: Sequence[int] = LENGTHS) -> list[list[int]]:
    """Long pieces beside single tokens: every text ends with some of these, in steps of their own."""
    cuts = []
    for i, n in enumerate(lengths):
        first = max(0, n - 3 - i)
        cuts.append(sorted({0, first // 3, first // 2 + i, first, *range(first, n + 1)} & set(range(n + 1))))
    return cuts


def assert_bits(got: Sequence[Tensor], want: Sequence[Tensor]) -> None:
    for a, b in zip(got, want, strict=True):
        assert b.isfinite().all()
        assert torch.equal(a, b), (a - b).abs().max()


def assert_near(got: Sequence[Tensor], want: Sequence[Tensor]) -> None:
    for a, b in zip(got, want, strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()


def both(**options: object) -> tuple[Decoder, Decoder]:
    """Return a fused model, and the same model plain."""
    plain = decoder(layers=2, **options)  # type: ignore[arg-type]
    model = copy.deepcopy(plain)
    assert fuse(model) == 2
    return model, plain


HEADS = [(1, 1, 16), (9, 3, 64), (5, 1, 48), (6, 6, 128), (2, 1, 256), (8, 1, 32)]


@pytest.mark.parametrize("heads", HEADS)
def test_batches_pieces_and_pages(isa: str, heads: tuple[int, int, int], calls: list[int]) -> None:
    model, plain = both(heads=Heads(*heads), width=72, hidden=100)
    rows = texts()
    want = alone(model, rows)
    assert_near(want, alone(plain, rows))
    assert calls == [*LENGTHS]
    for page in (16, 1, 7, 300):
        assert_bits(stepwise(model, rows, mixed(), page=page), want)
    assert_bits(stepwise(model, rows[::-1], mixed()[::-1]), want[::-1])
    assert_bits(stepwise(model, rows[2:3], [range(LENGTHS[2] + 1)]), want[2:3])


@pytest.mark.parametrize("window", [1, 2, 40, 127, 128, 129, 250, 1000])
def test_windows(isa: str, window: int) -> None:
    model, plain = both(score=Score(window=window))
    rows = texts()
    want = alone(model, rows)
    assert_near(want, alone(plain, rows))
    assert_bits(stepwise(model, rows, mixed()), want)
    assert_bits(stepwise(model, rows[3:], [range(291)]), want[3:])


@pytest.mark.parametrize("name", ["Q4_1", "Q6_K", "Q8_0", "BF16"])
def test_packed_weights_and_threads(isa: str, name: str) -> None:
    model = decoder(width=256, hidden=512, heads=Heads(8, 4, 32), layers=2, bias=name == "Q8_0")
    swap(model, LINEARS, pack(name))
    plain = copy.deepcopy(model)
    fuse(model)
    rows, before = texts(), torch.get_num_threads()
    want = alone(model, rows)
    assert_near(want, alone(plain, rows))
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            assert_bits(stepwise(model, rows, mixed()), want)
            assert_bits(stepwise(model, rows[2:3], [range(151)]), want[2:3])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("interleaved", [False, True])
def test_a_rectangle_is_so_many_sequences(interleaved: bool, calls: list[int]) -> None:
    """Conversations, batches, and rows that stand anywhere have the bits of the same tokens on pages."""
    model, plain = both(position=Rotary(8, interleaved=interleaved))
    ids = torch.stack(texts((40, 40)))
    want = torch.stack(alone(model, list(ids)))
    for m, same in ((model, torch.equal), (plain, torch.allclose)):
        with torch.inference_mode():
            cache, parts = Cache.empty(m, 2, 50), list[Tensor]()
            for a, b in ((0, 30), (30, 31), (31, 33), (33, 40)):
                parts.append(m(ids[:, a:b], Stream.at(cache, a, b - a)))
            assert same(torch.cat(parts, 1), want) or torch.allclose(torch.cat(parts, 1), want, atol=1e-5)
            anywhere = Stream(torch.tensor([[20, 21], [8, 9]]), cache)
            tokens = torch.stack((ids[0, 20:22], ids[1, 8:10]))
            again = torch.stack((want[0, 20:22], want[1, 8:10]))
            assert same(m(tokens, anywhere), again) or torch.allclose(m(tokens, anywhere), again, atol=1e-5)
    assert calls == [40, 40, 60, 2, 4, 14, 4]


def test_turns_that_follow_from_a_length(calls: list[int]) -> None:
    """As many frequencies as sequences, each from its own length alone."""
    position = Rotary(16, frequencies=DynamicNTK(2.0, 30))
    model, plain = both(position=position)
    rows = texts((20, 37, 90))
    begins = [Prompt(torch.tensor([[len(row)]])) for row in rows]
    whole = [[0, len(row)] for row in rows]
    want = [
        stepwise(model, [row], [cut], begins=[begin])[0]
        for row, cut, begin in zip(rows, whole, begins, strict=True)
    ]
    assert_near(want, stepwise(plain, rows, whole, begins=begins))
    assert_bits(stepwise(model, rows, whole, begins=begins), want)
    assert_bits(stepwise(model, rows, mixed((20, 37, 90)), begins=begins), want)
    assert len(calls) > 3


def test_what_sees_otherwise_is_not_taken(calls: list[int]) -> None:
    """Prefixes and first keys are the reference's business, beside others too."""
    model, plain = both()
    rows = texts((12, 9))
    begin = Prompt(torch.tensor([[9]]))
    cuts = [[0, 12], [0, 9]]
    for other in (
        replace(begin, length=torch.tensor([[12]]), prefix=torch.tensor([[5]])),
        replace(begin, length=torch.tensor([[12]]), since=torch.arange(12)[None] // 4 * 4),
    ):
        got = stepwise(model, rows, cuts, begins=[other, begin])
        assert_near(got, stepwise(plain, rows, cuts, begins=[other, begin]))
        assert not torch.allclose(got[0], alone(model, rows[:1])[0])
    assert calls == [12, 12], "what they are compared with"


@torch.inference_mode()
def test_steps_that_do_not_add_up_are_not_taken(calls: list[int]) -> None:
    """C reads whatever a table says, so nothing but pages that are there is passed on."""
    model, plain = both()
    ids = texts((8,))[0]

    def step(positions: Tensor, table: Sequence[int], *spans: tuple[int, int]) -> tuple[Tensor, Tensor]:
        made = [
            Paged(positions, Pool.empty(m, 3, 4), spans, [torch.tensor(table)] * len(spans))
            for m in (model, plain)
        ]
        return model(ids[: len(positions)], made[0]), plain(ids[: len(positions)], made[1])

    torch.testing.assert_close(*step(torch.tensor([0, 2, 4]), [0, 1], (0, 3)))
    torch.testing.assert_close(*step(torch.tensor([0, 1]), [-1], (0, 2)))
    for positions, table in (
        (torch.tensor([0, 1]), [3]),
        (torch.tensor([3, 4]), [0]),
        (torch.tensor([0]), []),
    ):
        with pytest.raises((IndexError, RuntimeError)):
            step(positions, table, (0, len(positions)))
    assert calls == []


def test_pages_of_other_numbers_are_not_taken(calls: list[int]) -> None:
    model, _ = both()
    pool = Pool.empty(model, 1, 16, dtype=torch.float64)
    with torch.inference_mode(), pytest.raises(RuntimeError):
        model(texts((4,))[0], Paged(torch.arange(4), pool, [(0, 4)], [torch.tensor([0])]))
    assert calls == []


def test_tokens_that_are_not_numbers_keep_to_themselves() -> None:
    model, _ = both()
    rows = texts((20, 33))
    want = alone(model, rows)
    model.get_parameter("embed.weight").data[7] = torch.nan
    rows[1][:] = 7
    assert_bits([stepwise(model, rows, [[0, 10, 20], [0, 1, 33]])[0]], want[:1])


def test_what_is_row_independent() -> None:
    model, plain = both()
    assert row_independent(model) is None
    assert row_independent(plain) == "it is not a fused decoder"
    assert "block 1: GELU has no C kernel" in row_independent_with("layers.1.mlp.up", nn.GELU())
    assert row_independent_with("norm", nn.LayerNorm(64)) == "its last norm is a LayerNorm"
    assert row_independent_with("head", nn.Linear(64, 50)) == "its head is a Linear"
    assert row_independent_with("embed", nn.Identity()) == "its embedding is a Identity"
    assert row_independent_with("positions", nn.Identity()) == "its positions are added to the stream"
    model.head.to(torch.bfloat16)
    assert "bfloat16" in (row_independent(model) or "")


def row_independent_with(path: str, module: nn.Module) -> str:
    model, _ = both()
    model.set_submodule(path, module)
    return row_independent(model) or ""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_head_of_plain_floats(isa: str, dtype: torch.dtype) -> None:
    linear = nn.Linear(100, 37).to(dtype)
    head, x = FusedLinear(linear), torch.randn(2, 19, 100).to(dtype)
    with torch.inference_mode():
        got = head(x)
        torch.testing.assert_close(got, linear(x))
        for row, want in zip(x.flatten(0, 1), got.flatten(0, 1), strict=True):
            assert torch.equal(head(row), want)
    head(x).float().sum().backward()
    assert linear.weight.grad is not None
