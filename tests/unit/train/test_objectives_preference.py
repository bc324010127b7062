"""Preferences and rankings: what their losses are at numbers that can be worked out, and where they lead."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bestiary.errors import RequestError
from bestiary.train.objectives import preference, ranking
from bestiary.train.objectives.preference import Pair

# log pi and log ref of the chosen and the rejected of two pairs: margins 1.5 and -1.
PAIR = Pair(
    torch.tensor([-2.0, -3.0]),
    torch.tensor([-3.0, -1.0]),
    torch.tensor([-2.5, -2.0]),
    torch.tensor([-2.0, -1.0]),
)
LOSSES: dict[str, Callable[[Pair], Tensor]] = {
    "dpo": lambda pair: preference.dpo(pair, 0.1),
    "robust": lambda pair: preference.robust(pair, 0.1, 0.1),
    "hinge": lambda pair: preference.hinge(pair, 0.1),
    "ipo": lambda pair: preference.ipo(pair, 0.1),
    "exo": lambda pair: preference.exo(pair, 0.1),
    "nca": lambda pair: preference.nca(pair, 0.1),
    "sppo_hard": lambda pair: preference.sppo_hard(pair, 0.1),
    "aot": lambda pair: preference.aot(pair, 0.1),
    "aot_pair": lambda pair: preference.aot_pair(pair, 0.1),
    "apo_zero": lambda pair: preference.apo_zero(pair, 0.1),
    "jensen_shannon": lambda pair: preference.jensen_shannon(pair, 0.1),
    "alpha": lambda pair: preference.alpha(pair, 0.1),
    "simpo": lambda pair: preference.simpo(pair, 2.0, 0.5),
    "odds_ratio": lambda pair: -preference.odds_ratio(pair),
    "kto_pair": lambda pair: preference.kto_pair(pair, 0.1),
}


def s(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_losses_by_hand() -> None:
    def first(losses: Tensor) -> float:
        return float(losses[0])

    assert PAIR.margin.tolist() == [1.5, -1.0]
    assert first(preference.dpo(PAIR, 0.1)) == pytest.approx(-math.log(s(0.15)))
    mixed = -0.8 * math.log(s(0.15)) - 0.2 * math.log(s(-0.15))
    assert first(preference.dpo(PAIR, 0.1, 0.2)) == pytest.approx(mixed)
    robust = (-0.8 * math.log(s(0.15)) + 0.2 * math.log(s(-0.15))) / 0.6
    assert first(preference.robust(PAIR, 0.1, 0.2)) == pytest.approx(robust)
    assert first(preference.hinge(PAIR, 0.1)) == pytest.approx(0.85)
    assert first(preference.ipo(PAIR, 0.1)) == pytest.approx(3.5**2)
    assert first(preference.sppo_hard(PAIR, 0.1)) == pytest.approx(4.5**2 + 4.0**2)
    assert first(preference.apo_zero(PAIR, 0.1)) == pytest.approx(1 - s(0.05) + s(-0.1))
    assert first(preference.apo_down(PAIR, 0.1)) == pytest.approx(s(0.05) + 1 - s(0.15))
    assert first(preference.simpo(PAIR, 2.0, 0.5)) == pytest.approx(-math.log(s(2 * 1.5 - 0.5)), rel=1e-5)
    kl = s(0.15) * math.log(s(0.15) / 0.999) + s(-0.15) * math.log(s(-0.15) / 0.001)
    assert first(preference.exo(PAIR, 0.1)) == pytest.approx(kl, rel=1e-5)
    odds = math.exp(-2) / (1 - math.exp(-2)) / (math.exp(-3) / (1 - math.exp(-3)))
    free = Pair.free(PAIR.chosen, PAIR.rejected)
    assert first(preference.odds_ratio(free)) == pytest.approx(math.log(s(math.log(odds))), rel=1e-5)


def test_the_mean_of_robust_losses_is_that_without_wrong_preferences() -> None:
    """A tenth of the pairs the wrong way round: what robust expects of them is DPO of the right ones."""
    turned = Pair(PAIR.rejected, PAIR.chosen, PAIR.rejected_reference, PAIR.chosen_reference)
    expected = 0.9 * preference.robust(PAIR, 0.1, 0.1) + 0.1 * preference.robust(turned, 0.1, 0.1)
    torch.testing.assert_close(expected, preference.dpo(PAIR, 0.1))


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_down_prefers_the_chosen(name: str) -> None:
    chosen, rejected = (part.clone().requires_grad_() for part in (PAIR.chosen, PAIR.rejected))
    pair = Pair(chosen, rejected, PAIR.chosen_reference, PAIR.rejected_reference)
    up, down = torch.autograd.grad(LOSSES[name](pair).mean(), (chosen, rejected))
    assert (down - up > 0).all()


def test_rewards_have_no_gradient() -> None:
    pair = Pair(PAIR.chosen.clone().requires_grad_(), *(PAIR.rejected, *[PAIR.chosen_reference] * 2))
    up, down = preference.rewards(pair, 0.1)
    assert not up.requires_grad
    torch.testing.assert_close(up, torch.tensor([0.05, -0.1]))
    torch.testing.assert_close(down, torch.tensor([-0.05, 0.1]))


def test_answers_that_are_no_pairs() -> None:
    judged = preference.Desirable(torch.tensor([0.5]), torch.tensor([-1.0, 2.0]))
    far = preference.divergence(torch.tensor([-1.0, -2.0]), torch.tensor([-2.0, -1.5]))
    assert float(far) == 0.25
    assert float(preference.divergence(torch.tensor([-3.0]), torch.tensor([-2.0]))) == 0
    want = [1.5 * (1 - s(0.025)), 0.7 * (1 - s(0.125)), 0.7 * (1 - s(-0.175))]
    torch.testing.assert_close(preference.kto(judged, far, 0.1, (1.5, 0.7)), torch.tensor(want))
    want = [1 - s(0.05), s(-0.1), s(0.2)]
    torch.testing.assert_close(preference.apo_zero_unpaired(judged, 0.1), torch.tensor(want))


def test_a_margin_is_of_its_own_pair() -> None:
    chosen, rejected = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.5], [1.0]])
    want = -(math.log(s(0.5 - 0.2)) + math.log(s(-1.0 - 1.0))) / 2
    got = ranking.reward_pair(chosen, rejected, torch.tensor([[0.2], [1.0]]))
    assert float(got) == pytest.approx(want)
    assert float(ranking.centred(chosen, rejected)) == pytest.approx((1.5**2 + 1) / 2)
    with pytest.raises(RequestError, match=r"margin \(2,\): these should have one shape"):
        ranking.reward_pair(chosen, rejected, torch.tensor([0.2, 1.0]))


def test_ranks_that_are_wrong_cost_their_distance() -> None:
    scores, rewards = torch.tensor([-1.0, -2.0, -0.5]), torch.tensor([1.0, 3.0, 1.0])
    # Only the second is better than others, and it is the least likely: 1 and 1.5.
    assert float(ranking.rank(scores, rewards)) == 2.5
    assert float(ranking.rank(scores, -rewards)) == 0
    each = torch.tensor([[-1.0, -1.0, 0.0], [-2.0, -4.0, -6.0], [-1.0, 0.0, 0.0]])
    assert ranking.score(each, torch.tensor([2, 3, 1]), 0.0).tolist() == [-2, -12, -1]
    assert ranking.score(each, torch.tensor([2, 3, 1])).tolist() == [-1, -4, -1]
    assert float(ranking.imitation(each, rewards)) == 4


def test_candidates_share_a_query() -> None:
    answers = [torch.tensor([1, 8, 2]), torch.tensor([1, 8, 9, 9, 9, 9, 2])]
    ids, labels = ranking.candidates(torch.tensor([1, 5, 6]), answers, longest=8, padding=0)
    x = -100
    assert ids.tolist() == [[1, 5, 6, 1, 8, 2, 0, 0], [1, 5, 6, 1, 8, 9, 9, 9]]
    assert labels.tolist() == [[x, x, 1, 8, 2, x, x, x], [x, x, 1, 8, 9, 9, 9, x]]
    with pytest.raises(RequestError, match="3 tokens leaves no room for answers in 3"):
        ranking.candidates(torch.tensor([1, 5, 6]), answers, longest=3, padding=0)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(RequestError, match=r"chosen \(2,\), rejected \(3,\)"):
        Pair.free(torch.zeros(2), torch.zeros(3))
    with pytest.raises(RequestError, match=r"below 0\.5"):
        preference.robust(PAIR, 0.1, 0.5)
    with pytest.raises(RequestError, match="its logarithm"):
        preference.exo(PAIR, 0.1, 0.0)
    with pytest.raises(RequestError, match=r"scores \(2,\), rewards \(3,\)"):
        ranking.rank(torch.zeros(2), torch.zeros(3))
