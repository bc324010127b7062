"""The functions on logits, each against transformers' processor or numpy's generator."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers.generation import logits_process as hf

from bestiary.run import sample
from bestiary.run.params import SamplingParams
from bestiary.run.sample import History

NOTHING: Any = torch.zeros(1, 1, dtype=torch.long)


def logits(rows: int = 4, size: int = 3000, scale: float = 3.0) -> Tensor:
    return torch.randn(rows, size) * scale


def same_kept(ours: Tensor, theirs: Tensor) -> None:
    """Both kept the same tokens, more than none and fewer than all, and left their logits alone."""
    kept = ours > -math.inf
    assert torch.equal(kept, theirs > -math.inf)
    assert kept.any(-1).all()
    assert not kept.all()
    torch.testing.assert_close(ours[kept], theirs[kept])


@pytest.mark.parametrize("k", [1, 2, 40, 2999])
def test_top_k(k: int) -> None:
    x = logits()
    same_kept(sample.top_k(x, k), hf.TopKLogitsWarper(k)(NOTHING, x))


def test_top_k_beyond_the_vocabulary_keeps_all() -> None:
    x = logits()
    assert torch.equal(sample.top_k(x, 2**62), x)


# The scales make the nucleus a few tokens, hundreds, and more than the 4,096 that are looked at second.
@pytest.mark.parametrize("scale", [6.0, 2.0, 0.5])
@pytest.mark.parametrize("p", [1e-9, 0.1, 0.5, 0.9, 0.99])
def test_top_p(p: float, scale: float) -> None:
    x = logits(size=9000, scale=scale)
    # In float64: its float32 sum of 9,000 probabilities is off by more than some of them.
    same_kept(sample.top_p(x, p), hf.TopPLogitsWarper(p)(NOTHING, x.double()).float())


def test_top_p_looks_past_its_first_guesses() -> None:
    kept = [int((sample.top_p(logits(1, 9000, s), 0.9) > -math.inf).sum()) for s in (6.0, 2.0, 0.5)]
    assert kept[0] <= 64 < kept[1] <= 4096 < kept[2]


def test_top_p_keeps_the_fewest_that_reach_p() -> None:
    x = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
    for p, count in [(0.4, 1), (0.5, 1), (0.51, 2), (0.75, 2), (0.76, 4), (1.0, 4)]:  # the last two are tied
        assert int((sample.top_p(x, p) > -math.inf).sum()) == count, p


@pytest.mark.parametrize("p", [1e-6, 0.05, 0.5, 1.0])
def test_min_p(p: float) -> None:
    x = logits(size=300, scale=5.0)
    theirs: Any = hf.MinPLogitsWarper(p)
    same_kept(sample.min_p(x, p), theirs(NOTHING, x))


@pytest.mark.parametrize("p", [0.01, 0.2, 0.9, 0.99])
def test_typical(p: float) -> None:
    x = logits()
    same_kept(sample.typical(x, p), hf.TypicalLogitsWarper(p)(NOTHING, x))


@pytest.mark.parametrize("p", [0.2, 0.95])
def test_typical_after_another_filter(p: float) -> None:
    x = sample.top_k(logits(), 30)
    same_kept(sample.typical(x, p), hf.TypicalLogitsWarper(p)(NOTHING, x))


@pytest.mark.parametrize("value", [0.01, 0.7, 2.0])
def test_temperature(value: float) -> None:
    x = logits()
    torch.testing.assert_close(sample.temperature(x, value), hf.TemperatureLogitsWarper(value)(NOTHING, x))


def test_the_least_temperature_is_greedy_and_finite() -> None:
    x = logits()
    cold = sample.temperature(x, 5e-324)
    assert cold.isfinite().all()
    assert torch.equal(sample.draw(cold, torch.rand(4, dtype=torch.float64)), x.argmax(-1))


@pytest.mark.parametrize("penalty", [0.5, 1.3, 10.0])
def test_repetition(penalty: float) -> None:
    x, ids = logits(size=100), torch.randint(100, (4, 60))
    history = [History.of(row, 100) for row in ids]
    ours = sample.repetition(x, torch.stack([h.seen for h in history]), penalty)
    theirs = hf.RepetitionPenaltyLogitsProcessor(penalty)(ids, x)
    assert not torch.equal(ours, x)
    torch.testing.assert_close(ours, theirs)


def test_frequency_and_presence_by_counting() -> None:
    x, answer = logits(rows=1, size=20)[0], [3, 3, 7, 3, 19]
    history = History.of(torch.tensor([1, 2, 3]), 20)  # the prompt does not count
    for token in answer:
        history.add(token)
    wanted = x.clone()
    for token in range(20):  # OpenAI's formula, token by token
        count = answer.count(token)
        wanted[token] -= 0.4 * count + 1.5 * (1 if count > 0 else 0)
    torch.testing.assert_close(sample.frequency_presence(x, history.counts, 0.4, 1.5), wanted)


def test_history_sees_prompt_and_answer() -> None:
    history = History.of(torch.tensor([1, 2]), 6)
    history.add(5)
    assert history.seen.nonzero()[:, 0].tolist() == [1, 2, 5]


def test_bias() -> None:
    x = logits(size=50)
    biases = {3: 2.5, 49: -100.0}
    named: Any = {(token,): value for token, value in biases.items()}
    theirs: Any = hf.SequenceBiasLogitsProcessor(named)
    torch.testing.assert_close(sample.bias(x, biases), theirs(torch.zeros(4, 1, dtype=torch.long), x))
    torch.testing.assert_close(sample.bias(x[0], biases), sample.bias(x, biases)[0])


def test_everything_in_transformers_order() -> None:
    x, prompt = logits(1, 500), torch.randint(500, (1, 40))
    params = SamplingParams(
        logit_bias={5: 4.0},
        repetition_penalty=1.2,
        temperature=0.8,
        top_k=200,
        top_p=0.95,
        min_p=0.002,
        typical_p=0.9,
    )
    named: Any = {(5,): 4.0}
    theirs: Any = hf.LogitsProcessorList(
        [
            hf.SequenceBiasLogitsProcessor(named),
            hf.RepetitionPenaltyLogitsProcessor(1.2),
            hf.TemperatureLogitsWarper(0.8),
            hf.TopKLogitsWarper(200),
            hf.TopPLogitsWarper(0.95),
            hf.MinPLogitsWarper(0.002),
            hf.TypicalLogitsWarper(0.9),
        ]
    )
    ours = sample.keep(sample.penalise(x, params, History.of(prompt[0], 500)), params)
    same_kept(ours, theirs(prompt, x))


def test_defaults_change_nothing() -> None:
    x, params = logits(), SamplingParams()
    assert sample.keep(sample.penalise(x, params, None), params) is x


@pytest.mark.parametrize("filtered", [lambda x: x, lambda x: sample.top_k(x, 5)])
def test_draws_follow_the_distribution(filtered: Callable[[Tensor], Tensor]) -> None:
    """Chi-square of 20,000 seeded draws over 12 tokens against softmax: p > 0.001."""
    x = filtered(torch.randn(12) * 1.5)
    points = torch.tensor([sample.uniform(7, 0, step) for step in range(20_000)], dtype=torch.float64)
    counts = sample.draw(x.expand(20_000, -1), points).bincount(minlength=12).double()
    expected = x.double().softmax(-1) * 20_000
    real = expected > 0
    assert counts[~real].sum() == 0
    statistic = ((counts - expected)[real] ** 2 / expected[real]).sum().item()
    # The 0.999 quantiles of chi-square with 11 and with 4 degrees of freedom.
    assert statistic < {12: 31.264, 5: 18.467}[int(real.sum())]


def test_draw_inverts_the_distribution() -> None:
    x = torch.tensor([0.25, 0.0, 0.5, 0.25, 0.0]).log()
    for point, token in [(0.0, 0), (0.2499, 0), (0.25, 2), (0.7499, 2), (0.75, 3), (1 - 2**-53, 3)]:
        assert sample.draw(x, torch.tensor(point, dtype=torch.float64)).item() == token


def test_a_draw_never_takes_what_was_left_out() -> None:
    x = sample.top_k(logits(1000, 64), 3)
    for point in (0.0, 1 - 2**-53):
        drawn = sample.draw(x, torch.full((1000,), point, dtype=torch.float64))
        assert (x.gather(-1, drawn[:, None]) > -math.inf).all()


def test_a_row_is_drawn_alike_alone_and_in_a_batch() -> None:
    params = SamplingParams(temperature=0.9, top_k=50, top_p=0.9, min_p=0.01)
    x = logits(32)
    points = torch.rand(32, dtype=torch.float64)
    together = sample.draw(sample.keep(x, params), points)
    alone = [sample.draw(sample.keep(row, params), point) for row, point in zip(x, points, strict=True)]
    assert together.tolist() == [token.item() for token in alone]


@pytest.mark.parametrize("k", [1, 5, 300, 2**40])
def test_narrow_draws_what_top_k_draws(k: int) -> None:
    params = SamplingParams(temperature=0.8, top_k=k, top_p=0.9, min_p=0.01)
    for row in logits(20, 300).round(decimals=1):  # so coarse that many are tied
        few, ids = sample.narrow(row, k)
        assert torch.equal(ids, (sample.top_k(row, k) > -math.inf).nonzero()[:, 0])
        point = torch.rand((), dtype=torch.float64)
        assert ids[sample.draw(sample.keep(few, params), point)] == sample.draw(
            sample.keep(row, params), point
        )


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**63 - 1])
@pytest.mark.parametrize("answer", [0, 15])
def test_uniform_is_numpys_philox(seed: int, answer: int) -> None:
    for step in (1, 2, 1000, 2**40):
        # numpy counts up before it draws.
        generator = np.random.Philox(counter=[step - 1, 0, 0, 0], key=[seed, answer])
        assert sample.uniform(seed, answer, step) == (int(generator.random_raw(1)[0]) >> 11) * 2.0**-53


def test_uniform_differs_by_seed_answer_and_step() -> None:
    points = {sample.uniform(a, b, c) for a in range(10) for b in range(10) for c in range(10)}
    assert len(points) == 1000
    assert all(0 <= point < 1 for point in points)


def test_logprobs() -> None:
    x = logits(1, 200)[0]
    every = torch.log_softmax(x.double(), -1)
    order = every.argsort(descending=True).tolist()
    found = sample.logprobs(x, order[50], 3)
    assert list(found) == [order[50], *order[:3]]  # the chosen one first
    assert [entry.rank for entry in found.values()] == [51, 1, 2, 3]
    for token, entry in found.items():
        assert entry.logprob == pytest.approx(every[token].item(), abs=1e-5)
    assert list(sample.logprobs(x, order[1], 3)) == [order[1], order[0], order[2]]
    assert list(sample.logprobs(x, order[7], 0)) == [order[7]]
