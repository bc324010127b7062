"""Keys and values in eight bits: how far they are from what they were, and how far answers are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bestiary import LLM
from bestiary.cache import Pool, Pool8
from bestiary.context import Paged
from bestiary.engine import open_engine
from bestiary.errors import RequestError
from bestiary.load import load
from bestiary.models import Decoder
from bestiary.prompt import Slot
from tests import tiny
from tools.sources import ROOT

FAMILIES = ("llama", "llama-mqa-tied", "mistral", "bloom", "falcon-rw", "gpt2", "gemma")


class Slots:
    def __init__(self, *slots: Slot) -> None:
        self._slots = list(slots)

    def slots(self) -> list[Slot]:
        return self._slots


def test_each_head_of_a_token_is_kept_to_half_a_step() -> None:
    pool = Pool8.empty(Slots(Slot(0, 3, 16)), 4, 8)
    rows = torch.tensor([3, 31, 0])
    k, v = torch.randn(2, 3, 3, 16) * torch.tensor([1e-3, 1.0, 1e4])[:, None, None]
    k[1, 2] = 0
    pool.write(0, rows, k, v)
    for got, want in zip(pool.read(0, rows), (k, v), strict=True):
        step = want.abs().amax(-1, keepdim=True) / 127
        assert ((got - want).abs() <= step / 2 + 1e-12).all()
    assert torch.equal(pool.read(0, torch.tensor([5]))[0], torch.zeros(1, 3, 16))


def test_what_is_kept_of_a_token_depends_on_it_alone() -> None:
    k, v = torch.randn(2, 40, 2, 8)
    one, all_ = (Pool8.empty(Slots(Slot(0, 2, 8)), 5, 8) for _ in range(2))
    all_.write(0, torch.arange(40), k, v)
    for row in range(40):
        one.write(0, torch.tensor([row]), k[row : row + 1], v[row : row + 1])
    assert torch.equal(one.k[0], all_.k[0])
    assert torch.equal(one.scales[1][0], all_.scales[1][0])


def test_what_a_convolution_looks_back_on_is_kept_as_it_is() -> None:
    pool = Pool8.empty(Slots(Slot(0, 2, 8), Slot(1, 1, 8, 0)), 2, 4)
    assert pool.k[0].dtype == torch.int8
    assert pool.k[1].dtype == torch.float32


def logits(model: Decoder, pool: Pool, ids: Tensor) -> Tensor:
    table = torch.arange(pool.k[0].shape[0])
    with torch.inference_mode():
        ctx = Paged(torch.arange(len(ids)), pool, [(0, len(ids))], [table], [model.prompt(ids[None])])
        return model(ids, ctx)


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_stay_near(name: str, tmp_path: Path) -> None:
    tiny.make(name, tmp_path)
    model, ids = load(tmp_path).decoder, torch.randint(3, 130, (40,))
    want, got = (logits(model, kind.empty(model, 5, 8), ids) for kind in (Pool, Pool8))
    assert not torch.equal(got, want)
    assert ((got - want).norm() / want.norm()).item() < 0.05


def test_an_engine_of_eight_bits_gives_the_same_alone_and_in_company(llm: LLM) -> None:
    from tests.engine.test_engine import job, run

    asked = [job(llm, f"{i} is a number", seed=i) for i in range(5)]
    options: dict[str, Any] = {"cache_dtype": "int8", "deterministic": True}
    alone = [run(open_engine(llm, **options), one)[0] for one in asked]
    assert run(open_engine(llm, tokens=256, chunk=16, **options), *asked) == alone
    with pytest.raises(RequestError, match="cache_dtype='int4'"):
        open_engine(llm, cache_dtype="int4")


@pytest.mark.default_model
def test_the_default_model_hardly_diverges(default_model: Path) -> None:
    llm = LLM(default_model)
    model = llm.model
    assert isinstance(model, Decoder)
    ids = torch.tensor(llm.tokenizer.encode((ROOT / "bench/text.txt").read_text())[:512])
    exact, near = (
        logits(model, kind.empty(model, 32, 16), ids).double().log_softmax(-1) for kind in (Pool, Pool8)
    )
    divergence = (exact.exp() * (exact - near)).sum(-1).mean().item()
    assert 0 < divergence < 1e-3, divergence
