"""Fused blocks against the same blocks run one module at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bestiary.bricks import Heads, Met, Position, PreNorm, Rotary, unmoved
from bestiary.context import Cache, Full, Score, Stream
from bestiary.formats import FORMATS
from bestiary.kernels import native
from bestiary.models import Decoder
from bestiary.quant.fused import FusedBlocks, fuse, refusal
from bestiary.swap import swap
from tests.prenorm import LINEARS, VOCAB, decoder, pack


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of blocks in each call of C, in order."""
    library, seen = native.library(), list[int]()
    through = library.blocks

    def counted(blocks: object, count: int, *rest: object) -> None:
        seen.append(count)
        through(blocks, count, *rest)

    monkeypatch.setattr(library, "blocks", counted)
    return seen


@torch.inference_mode()
def decode(model: Decoder, start: int, count: int) -> tuple[Tensor, list[Tensor]]:
    """Logits of `count` single tokens after a prompt of `start`, and the cache's tensors."""
    ids = torch.randint(0, VOCAB, (1, start + count), generator=torch.Generator().manual_seed(1))
    cache = Cache.empty(model, 1, start + count + 3)
    if start:
        model(ids[:, :start], Stream.at(cache, 0, start))
    steps = [model(ids[:, p : p + 1], Stream.at(cache, p, 1)) for p in range(start, start + count)]
    return torch.cat(steps, 1), [*cache.k, *cache.v]


def assert_same(
    got: tuple[Tensor, list[Tensor]], want: tuple[Tensor, list[Tensor]], *, limit: float = 1e-5
) -> None:
    """Same logits and cache within `limit` of their largest."""
    for a, b in zip((got[0], *got[1]), (want[0], *want[1]), strict=True):
        assert b.isfinite().all()
        assert (a - b).abs().max() <= limit * b.abs().max()


def check(model: Decoder, calls: list[int], *, start: int = 5, count: int = 4, limit: float = 1e-5) -> None:
    """All blocks go to C in one call a token, with the same result."""
    want = decode(model, start, count)
    names = list(model.state_dict())
    assert fuse(model) == len(model.layers)
    assert list(model.state_dict()) == names
    assert_same(decode(model, start, count), want, limit=limit)
    assert calls == [len(model.layers)] * (count + (start > 0))


@pytest.mark.parametrize("name", list(FORMATS))
def test_every_format(name: str, calls: list[int]) -> None:
    model = decoder(width=256, hidden=512, heads=Heads(8, 4, 32), layers=2)
    swap(model, LINEARS, pack(name))
    check(model, calls)


def test_another_format_for_each_matrix(calls: list[int]) -> None:
    model = decoder(width=256, hidden=256, heads=Heads(4, 1, 64), bias=True)
    names = iter(FORMATS)
    for path in ("q", "k", "v", "o", "gate", "up", "down"):
        swap(model, rf"layers\.[01]\..*\.{path}", pack(next(names)))
        swap(model, rf"layers\.2\..*\.{path}", pack(next(names)))
    check(model, calls)


HEADS = [(1, 1, 16), (9, 3, 64), (5, 1, 48), (6, 6, 128), (2, 1, 256), (12, 2, 80)]


@pytest.mark.parametrize("heads", [Heads(*sizes) for sizes in HEADS])
@pytest.mark.parametrize("start", [0, 1, 126, 300])
def test_heads_and_lengths(heads: Heads, start: int, calls: list[int]) -> None:
    check(decoder(heads=heads, width=72, hidden=100, layers=2), calls, start=start)


@pytest.mark.parametrize("window", [1, 2, 127, 128, 129, 250, 1000])
def test_sliding_windows(window: int, calls: list[int]) -> None:
    check(decoder(score=Score(window=window), layers=2), calls, start=254, count=3)


@pytest.mark.parametrize(
    "position",
    [
        unmoved,
        Rotary(32),
        Rotary(32, interleaved=True),
        Rotary(8, 500.0),
        Rotary(8, interleaved=True),
    ],
)
def test_positions(position: Position, calls: list[int]) -> None:
    check(decoder(heads=Heads(4, 2, 32), position=position, score=Score(scale=0.3)), calls)


@pytest.mark.parametrize(("width", "hidden"), [(1, 1), (7, 13), (100, 17), (515, 1030)])
@pytest.mark.parametrize("bias", [False, True])
def test_any_width(width: int, hidden: int, bias: bool, calls: list[int]) -> None:
    """The norm of one channel is its sign, but near 0 the quotient of two small numbers: hence the limit."""
    check(decoder(width=width, hidden=hidden, bias=bias), calls, limit=1e-3 if width == 1 else 1e-5)


@pytest.mark.parametrize("isa", ["AVX-512", "AVX2", "plain C"])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_instruction_sets_and_threads(isa: str, threads: int, calls: list[int]) -> None:
    library, here, before = native.library(), native.library().isa, torch.get_num_threads()
    known = ("AVX-512", "AVX2", "plain C")
    # What this processor lacks is not left out but replaced by the best it has.
    library.use_isa(isa if known.index(isa) >= known.index(here) else here)
    torch.set_num_threads(threads)
    try:
        model = decoder(width=160, hidden=320, heads=Heads(6, 2, 64))
        swap(model, LINEARS, pack("Q4_1"))
        check(model, calls, start=200)
    finally:
        library.use_isa(here)
        torch.set_num_threads(before)


def test_large_scores_and_activations(calls: list[int]) -> None:
    """The softmax and the gate at their ends: exp overflows and vanishes without harm.

    A score of 300 is rounded to 3e-5 in float32, and its weight as coarsely: hence the limit.
    """
    model = decoder(score=Score(scale=20.0))
    for name, parameter in model.named_parameters():
        if ".gate." in name:
            parameter.data *= 100
    check(model, calls, start=150, limit=1e-3)


def test_what_is_not_a_number_stays_one(calls: list[int]) -> None:
    model = decoder()
    fuse(model)
    model.get_parameter("embed.weight").data[3, 5] = float("nan")
    with torch.inference_mode():
        cache = Cache.empty(model, 1, 4)
        assert model(torch.tensor([[3]]), Stream.at(cache, 0, 1)).isnan().all()
    assert calls == [3]


# What C does not serve goes the plain way.


@pytest.fixture
def fused() -> tuple[Decoder, Decoder]:
    """A fused model and the same model plain."""
    plain = decoder()
    model = copy.deepcopy(plain)
    assert fuse(model) == 3
    return model, plain


def test_texts_without_a_memory(fused: tuple[Decoder, Decoder], calls: list[int]) -> None:
    model, plain = fused
    ids = torch.randint(0, VOCAB, (2, 6))
    with torch.inference_mode():
        torch.testing.assert_close(model(ids, Full.of(ids)), plain(ids, Full.of(ids)))
    assert calls == []


def test_training_takes_gradients(fused: tuple[Decoder, Decoder], calls: list[int]) -> None:
    model, _ = fused
    model(torch.tensor([[1]]), Stream.at(Cache.empty(model, 1, 4), 0, 1)).sum().backward()
    gradient = model.get_parameter("layers.0.attn.q.weight").grad
    assert gradient is not None
    assert gradient.abs().sum() > 0
    assert calls == []


def test_another_dtype(fused: tuple[Decoder, Decoder], calls: list[int]) -> None:
    model, plain = (m.to(torch.bfloat16) for m in fused)
    token = torch.tensor([[1]])
    with torch.inference_mode():
        caches = [Cache.empty(m, 1, 4, dtype=torch.bfloat16) for m in (model, plain)]
        got, want = (m(token, Stream.at(c, 0, 1)) for m, c in zip((model, plain), caches, strict=True))
    assert torch.equal(got, want)
    assert calls == []


def test_a_cache_of_another_shape_or_dtype(fused: tuple[Decoder, Decoder], calls: list[int]) -> None:
    model, plain = fused
    token = torch.tensor([[1]])
    with torch.inference_mode():
        strided = Cache.empty(model, 1, 4)
        strided.k[1] = torch.zeros(1, 4, 16, 2).transpose(2, 3)
        want = plain(token, Stream.at(Cache.empty(plain, 1, 4), 0, 1))
        torch.testing.assert_close(model(token, Stream.at(strided, 0, 1)), want)
    assert calls == []


def test_hooks_are_called(fused: tuple[Decoder, Decoder], calls: list[int]) -> None:
    model, _ = fused
    want = decode(model, 3, 2)
    assert len(calls) == 3
    seen = []
    hook = model.layers[1].register_forward_hook(lambda *_: seen.append(1))
    assert_same(decode(model, 3, 2), want)
    assert (len(seen), len(calls)) == (3, 3)
    hook.remove()
    assert_same(decode(model, 3, 2), want)
    assert (len(seen), len(calls)) == (3, 6)


def test_what_is_replaced_afterwards_counts(fused: tuple[Decoder, Decoder], calls: list[int]) -> None:
    class Doubled(nn.Module):
        """Some adapter that C does not know."""

        def __init__(self, base: nn.Module) -> None:
            super().__init__()
            self.base = base

        def forward(self, x: Tensor) -> Tensor:
            return 2 * self.base(x)

    model, plain = fused
    first = decode(model, 3, 2)
    for name, shape in (("layers.0.attn.q", (64, 64)), ("layers.2.mlp.down", (64, 96))):
        weight = torch.randn(shape) / 9
        plain.get_submodule(name).load_state_dict({"weight": weight})
        model.get_submodule(name).load_state_dict({"weight": weight}, assign=True)
    assert_same(decode(model, 3, 2), decode(plain, 3, 2))
    assert not torch.allclose(decode(model, 3, 2)[0], first[0])
    assert set(calls) == {3}
    calls.clear()
    for m in fused:
        swap(m, r"layers\.1\.attn\.v", Doubled)
    assert_same(decode(model, 3, 1), decode(plain, 3, 1))
    assert calls == [1] * 4, "the blocks before and after still go to C"


def test_copies_and_moves(fused: tuple[Decoder, Decoder], calls: list[int]) -> None:
    model, plain = fused
    want = decode(model, 3, 2)
    twin = copy.deepcopy(model)
    assert isinstance(twin.layers, FusedBlocks)
    model.get_parameter("layers.0.attn.o.weight").data.zero_()
    assert_same(decode(twin, 3, 2), want)
    assert_same(decode(twin, 3, 2), decode(plain, 3, 2))
    assert set(calls) == {3}


def test_weights_and_caches_whose_memory_moves(fused: tuple[Decoder, Decoder], calls: list[int]) -> None:
    """The same tensors at other addresses, the old ones given to others."""
    model, plain = fused
    decode(model, 3, 2)
    for m in fused:
        m.half().float()
    others = [torch.full_like(p, torch.nan) for m in fused for p in m.parameters()]
    assert_same(decode(model, 3, 2), decode(plain, 3, 2))
    for theirs, ours in zip(plain.parameters(), model.parameters(), strict=True):
        theirs.data = torch.randn_like(theirs) / 9
        ours.data = theirs.data.clone()
    others += [torch.full_like(p, torch.nan) for m in fused for p in m.parameters()]
    assert_same(decode(model, 3, 2), decode(plain, 3, 2))
    caches = [Cache.empty(m, 1, 8) for m in fused]
    with torch.inference_mode():
        for start in range(6):
            a, b = (
                m(torch.tensor([[1]]), Stream.at(c, start, 1)) for m, c in zip(fused, caches, strict=True)
            )
            torch.testing.assert_close(a, b)
            for cache in caches:
                cache.k[1] = cache.k[1].clone()
                cache.v[2] = cache.v[2].clone() if start < 3 else cache.v[2].mT.contiguous().mT
    assert set(calls) == {3}, "but for the cache that C cannot take"


def test_compile_sees_plain_blocks(fused: tuple[Decoder, Decoder], calls: list[int]) -> None:
    model, plain = fused
    token = torch.tensor([[1]])
    with torch.no_grad():
        compiled = torch.compile(model.layers, fullgraph=True, backend="eager")
        x = F.embedding(token, plain.get_parameter("embed.weight"))
        got = compiled(x, Stream.at(Cache.empty(model, 1, 4), 0, 1))
        torch.testing.assert_close(got, plain.layers(x, Stream.at(Cache.empty(plain, 1, 4), 0, 1)))
    assert calls == []


def test_reasons_for_a_refusal() -> None:
    def reason(change: Callable[[PreNorm], object], **options: object) -> str:
        block = decoder(**options).layers[0]  # type: ignore[arg-type]
        assert isinstance(block, PreNorm)
        change(block)
        return refusal(block) or ""

    def put(where: str, value: object) -> Callable[[PreNorm], object]:
        parent, _, name = where.rpartition(".")
        return lambda block: setattr(block.get_submodule(parent), name, value)

    assert reason(lambda _: None) == ""
    assert "PreNorm" in (refusal(nn.Linear(2, 2)) or "")
    assert "silu" in reason(put("mlp.act", F.gelu))
    assert "LayerNorm" in reason(put("attn_norm", nn.LayerNorm(64)))
    assert "normed" in reason(put("attn.q_norm", nn.RMSNorm(16)))
    assert "capped" in reason(lambda _: None, score=Score(softcap=30.0))
    assert "causal" in reason(lambda _: None, score=Score(causal=False))
    assert "rotary" in reason(put("attn.position", lambda q, k, ctx: (q, k)))
    assert "turned" in reason(lambda _: None, score=Score(meeting=Met(Rotary(16))))
    assert "24 channels" in reason(lambda _: None, heads=Heads(2, 1, 24))
    assert "272 channels" in reason(lambda _: None, heads=Heads(1, 1, 272))
    assert "Identity" in reason(put("attn.k", nn.Identity()))
    assert "bfloat16" in reason(lambda block: block.mlp.up.to(torch.bfloat16))
    assert "fit" in reason(put("mlp.down", nn.Linear(95, 64, bias=False)))
    assert "fit" in reason(put("attn.v", nn.Linear(64, 16, bias=False)))
    assert "fit" in reason(put("mlp_norm", nn.RMSNorm(63, 1e-5)))
    assert "fit" in reason(put("attn.position", Rotary(32)))


def test_without_the_library_nothing_is_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = decoder()
    want = decode(model, 2, 2)
    monkeypatch.setattr(native, "_load", lambda: "no compiler was found")
    assert fuse(model) == 0
    assert refusal(model.layers[0]) == "no compiler was found"
    assert_same(decode(model, 2, 2), want)
