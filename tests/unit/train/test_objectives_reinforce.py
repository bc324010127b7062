"""PPO's parts, weighted conversations and balanced experts, each by another way of working it out."""

from __future__ import annotations

import math

import pytest
import torch
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from bestiary.errors import RequestError
from bestiary.train.objectives import conditioned, experts
from bestiary.train.objectives import reinforce as rl
from bestiary.train.objectives.conditioned import Turn
from bestiary.train.objectives.next_token import IGNORED


def test_which_tokens_are_an_answers() -> None:
    real = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]]).bool()
    mask = rl.answers(real, torch.tensor([2, 1]), torch.tensor([2, 4]))
    # A column says the token behind it.
    assert mask.long().tolist() == [[0, 0, 0, 1, 1], [1, 1, 1, 1, 0]]
    with pytest.raises(RequestError, match="are not in rows of"):
        rl.answers(real, torch.tensor([2, 1]), torch.tensor([3, 4]))


def test_advantages_are_sums_of_what_was_not_expected() -> None:
    torch.manual_seed(0)
    values, rewards = torch.randn(2, 6), torch.randn(2, 6)
    got = rl.advantages(values, rewards, gamma=0.9, lam=0.8)
    after = torch.cat((values[:, 1:], torch.zeros(2, 1)), 1)
    surprise = rewards + 0.9 * after - values
    for t in range(6):
        want = sum((0.9 * 0.8) ** ahead * surprise[:, t + ahead] for ahead in range(6 - t))
        torch.testing.assert_close(got[:, t], want)
    # With both at 1 what is left is the whole reward less what was expected.
    torch.testing.assert_close(
        rl.advantages(values, rewards, lam=1.0), rewards.flip(1).cumsum(1).flip(1) - values
    )


def test_the_score_stands_on_the_last_token() -> None:
    mask = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 1]]).bool()
    got = rl.token_rewards(torch.ones(2, 4), torch.tensor([3.0, 5.0]), mask, 0.5)
    assert got.tolist() == [[-0.5, -0.5, 2.5, -0.5], [-0.5, -0.5, -0.5, 4.5]]


def test_penalties_of_the_whole_vocabulary_are_divergences() -> None:
    torch.manual_seed(0)
    policy, reference = torch.randn(2, 3, 7), torch.randn(2, 3, 7)
    said = torch.distributions.Categorical(logits=policy)
    want = torch.distributions.kl_divergence(said, torch.distributions.Categorical(logits=reference))
    torch.testing.assert_close(rl.full_penalty(policy, reference), want)
    torch.testing.assert_close(rl.entropy(policy), said.entropy())
    a, b = torch.tensor([-1.0]), torch.tensor([-3.0])
    assert [float(each(b, a)) for each in (rl.penalty, rl.absolute_penalty, rl.squared_penalty)] == [-2, 2, 2]


def test_whitening_is_within_the_mask() -> None:
    torch.manual_seed(0)
    values, mask = torch.randn(3, 8), torch.rand(3, 8) > 0.4
    got = rl.whitened(values, mask)[mask]
    torch.testing.assert_close(got.mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(got.std(), torch.tensor(1.0))
    torch.testing.assert_close(rl.variance(values, mask), values[mask].var())
    torch.testing.assert_close(rl.scaled(values, mask)[mask].mean(), values[mask].mean())


def test_what_is_clipped_teaches_nothing() -> None:
    new = torch.tensor([0.5, -0.5, 0.1, 0.5], requires_grad=True)
    gain = torch.tensor([1.0, -1.0, 1.0, -1.0])
    losses, clipped = rl.policy_losses(new, torch.zeros(4), gain)
    losses.sum().backward()
    assert clipped.tolist() == [True, True, False, False]
    assert new.grad is not None
    assert (new.grad == 0).tolist() == [True, True, False, False]
    torch.testing.assert_close(losses[:2].detach(), torch.tensor([-1.2, 0.8]))
    value, cut = rl.value_losses(torch.tensor([1.0, 0.1]), torch.zeros(2), torch.tensor([1.0, 1.0]))
    torch.testing.assert_close(value, torch.tensor([0.8**2 / 2, 0.9**2 / 2]))
    assert cut.tolist() == [True, False]
    ones = torch.ones(4).bool()
    assert rl.within(torch.full((4,), 3.0), torch.zeros(4), ones) == 0
    assert rl.within(torch.full((4,), 2.0), torch.zeros(4), ones) == 1


def test_coefficients_and_moments_follow() -> None:
    held = rl.AdaptiveCoefficient(0.2, 6.0, 1000.0)
    assert held.after(6.0, 100).value == 0.2
    assert held.after(60.0, 100).value == pytest.approx(0.2 * 1.02)
    assert held.after(5.4, 100).value == pytest.approx(0.2 * 0.99)
    torch.manual_seed(0)
    scores, moments = torch.randn(40) * 3 + 1, rl.RunningMoments()
    for part in scores.split(7):
        moments = moments.after(part)
    assert moments.mean == pytest.approx(scores.mean().item(), rel=1e-5)
    assert moments.std == pytest.approx(scores.std().item(), rel=1e-5)
    assert math.isnan(rl.RunningMoments().after(torch.tensor([1.0])).std)


def test_a_conversation_weighs_its_answers() -> None:
    turns = [Turn([5], [6, 7], 0.0), Turn([8], [9], 0.1), Turn([5], [6], 0.0)]
    row = conditioned.conversation(turns, start=1, end=2)
    x = IGNORED
    assert row.ids.tolist() == [1, 5, 6, 7, 2, 8, 9, 2]
    assert row.labels.tolist() == [x, x, x, x, x, 9, 2, x]
    torch.testing.assert_close(row.weights, torch.tensor([0, 0, 0, 0, 0, 0.1, 0.1, 0]))
    alone = conditioned.conversation([turn.as_one() for turn in turns], start=1, end=2)
    torch.testing.assert_close(alone.totals, torch.tensor([0.1]))
    both = conditioned.joined([row, alone])
    torch.testing.assert_close(both.totals, torch.tensor([0.2, 0.1]))
    logits = torch.randn(16, 11)
    want = torch.nn.functional.cross_entropy(logits, both.labels, reduction="none", ignore_index=x)
    torch.testing.assert_close(
        conditioned.weighted(logits, both.labels, both.weights), (want * both.weights).sum()
    )
    sure = torch.nn.functional.one_hot(both.labels.clamp_min(0), 11).float()
    torch.testing.assert_close(
        conditioned.weighted_accuracy(sure, both.labels, both.weights), both.weights.sum()
    )


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_packed_batches_hold_each_text_once(ranks: int) -> None:
    torch.manual_seed(ranks)
    lengths = torch.randint(1, 64, (200,)).tolist()
    batches = conditioned.multipack(lengths, 256, ranks)
    read = [index for batch in batches for rank in batch for index in rank]
    assert sorted(read) == list(range(len(read)))  # in the order given, each once, the last left out
    assert all(len(batch) == ranks for batch in batches)
    assert all(sum(lengths[i] for i in rank) <= 256 for batch in batches for rank in batch)
    assert sum(lengths[i] for i in read) > 0.8 * 256 * ranks * len(batches)


@pytest.mark.parametrize("masked", [False, True])
def test_balance_as_transformers_computes_it(masked: bool) -> None:
    torch.manual_seed(0)
    layers = [torch.randn(12, 8, requires_grad=True) for _ in range(3)]
    real = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]) if masked else None
    want = load_balancing_loss_func(tuple(layers), 8, 2, real)  # type: ignore[arg-type]  # they say one layer
    assert isinstance(want, torch.Tensor)
    got = experts.balance(layers, 2, None if real is None else real.flatten())
    torch.testing.assert_close(got, want)
    for ours, theirs in zip(torch.autograd.grad(got, layers), torch.autograd.grad(want, layers), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_balanced_router_has_the_least() -> None:
    """Each expert has as many tokens, and is as likely, as the next: count, E / count, 1 and 1."""
    even = torch.eye(8).repeat(2, 1) * 1e-3
    assert float(experts.balance([even], 1)) == pytest.approx(1, rel=1e-3)
    assert float(experts.balance_of_chosen([torch.randn(9, 8)], 2)) == pytest.approx(4)
    assert float(experts.balance_of_sequences(even[None], 1)) == pytest.approx(1, rel=1e-3)
    assert float(experts.balance_of_batch(even[None], 1)) == pytest.approx(1, rel=1e-3)
    uneven = torch.eye(8)[:1].repeat(16, 1) * 9
    assert float(experts.balance([uneven], 1)) > 7
    # By sequence, two that are uneven in turn are uneven; as one batch they are not.
    turned = torch.stack((uneven, uneven.roll(1, -1)))
    assert experts.balance_of_sequences(turned, 1) > 1.9 * experts.balance_of_batch(turned, 1)


@pytest.mark.parametrize(("made", "said"), [
    (lambda: experts.balance([torch.zeros(4, 8), torch.zeros(5, 8)], 2), r"\(4, 8\), \(5, 8\)"),
    (lambda: experts.balance([torch.zeros(4, 8)], 9), "9 of 8 experts"),
    (lambda: experts.balance([torch.zeros(4, 8)], 2, torch.ones(2, 2)), "each of 4 tokens"),
    (lambda: experts.balance([], 2), "none"),
    (lambda: conditioned.conversation([Turn([1], [2], 0.0)], start=1, end=2), "nothing to learn"),
    (lambda: conditioned.multipack([3, 70], 64, 2), "70 tokens is longer"),
    (lambda: rl.advantages(torch.zeros(2, 3), torch.zeros(2, 4)), "one shape"),
    (lambda: rl.RunningMoments().after(torch.zeros(0)), "no mean"),
    (lambda: rl.AdaptiveCoefficient(target=0.0), "above 0"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(made: object, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        made()  # type: ignore[operator]
