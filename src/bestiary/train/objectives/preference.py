"""Preferences: an answer that was chosen, and one that was rejected, told to a model without a reward model.

Names, as in the papers: y the answers, pi the policy that is trained, ref the one that it began as. A loss is
that of each pair, float32 (B); log-probabilities are sums over an answer's tokens unless a loss says means.
Where papers and the code that people train with differ (huggingface/trl 0.11), it is said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from ...errors import RequestError
from .shapes import alike


@dataclass(frozen=True)
class Pair:
    """log pi(y) of chosen and rejected answers, and log ref(y) of them, float32 (B) each.

    Without a reference (CPO, SimPO, ORPO) its two are 0, as for a reference that finds all alike likely.
    Raises RequestError for tensors of different shapes.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_reference: Tensor
    rejected_reference: Tensor

    def __post_init__(self) -> None:
        alike(
            chosen=self.chosen,
            rejected=self.rejected,
            chosen_reference=self.chosen_reference,
            rejected_reference=self.rejected_reference,
        )

    @classmethod
    def free(cls, chosen: Tensor, rejected: Tensor) -> Pair:
        """Return a pair without reference."""
        return cls(chosen, rejected, torch.zeros_like(chosen), torch.zeros_like(rejected))

    @property
    def up(self) -> Tensor:
        """log pi(y) / ref(y) of the chosen."""
        return self.chosen - self.chosen_reference

    @property
    def down(self) -> Tensor:
        """log pi(y) / ref(y) of the rejected."""
        return self.rejected - self.rejected_reference

    @property
    def margin(self) -> Tensor:
        """By how much more than the reference the policy prefers the chosen."""
        return (self.chosen - self.rejected) - (self.chosen_reference - self.rejected_reference)


def rewards(pair: Pair, beta: float) -> tuple[Tensor, Tensor]:
    """Return the rewards that the policy stands for, beta log pi/ref, detached: chosen and rejected."""
    return (beta * pair.up).detach(), (beta * pair.down).detach()


def logistic(margin: Tensor, beta: float, epsilon: float = 0.0) -> Tensor:
    """Return -(1 - epsilon) log s(beta margin) - epsilon log s(-beta margin), s the logistic function."""
    return -(1 - epsilon) * logsigmoid(beta * margin) - epsilon * logsigmoid(-beta * margin)


def dpo(pair: Pair, beta: float, epsilon: float = 0.0) -> Tensor:
    """Return the loss of DPO: Rafailov et al., 2023, arXiv 2305.18290, equation 7.

    epsilon: how likely a preference is the wrong way round (conservative DPO: Mitchell, 2023,
    ericmitchell.ai/cdpo.pdf).
    """
    return logistic(pair.margin, beta, epsilon)


def robust(pair: Pair, beta: float, epsilon: float) -> Tensor:
    """Return a loss whose mean is DPO's without wrong preferences: Chowdhury et al., 2024, arXiv 2403.00409.

    epsilon: the share of them. Raises RequestError for one that is not below 0.5.
    """
    if not 0 <= epsilon < 0.5:
        raise RequestError(f"epsilon = {epsilon} should be from 0 to below 0.5")
    right, wrong = logsigmoid(beta * pair.margin), logsigmoid(-beta * pair.margin)
    return ((epsilon * wrong) - (1 - epsilon) * right) / (1 - 2 * epsilon)


def hinge(pair: Pair, beta: float) -> Tensor:
    """Return max(0, 1 - beta margin): SLiC, Zhao et al., 2023, arXiv 2305.10425, as RSO weighs it."""
    return (1 - beta * pair.margin).relu()


def ipo(pair: Pair, beta: float) -> Tensor:
    """Return (margin - 1 / (2 beta))^2: Azar et al., 2023, arXiv 2310.12036, equation 17.

    The paper and its readers' first code (eric-mitchell/direct-preference-optimization) have sums over an
    answer's tokens, trl means.
    """
    return (pair.margin - 1 / (2 * beta)) ** 2


def exo(pair: Pair, beta: float, epsilon: float = 1e-3) -> Tensor:
    """Return the divergence of (s, 1 - s) from (1 - epsilon, epsilon), s = s(beta margin).

    Ji et al., 2024, arXiv 2402.00856. Raises RequestError for an epsilon whose logarithm is not finite.
    """
    if not 0 < epsilon < 1:
        raise RequestError(f"epsilon = {epsilon} should be between 0 and 1: its logarithm is taken")
    x = beta * pair.margin
    right = x.sigmoid() * (logsigmoid(x) - math.log(1 - epsilon))
    return right + (-x).sigmoid() * (logsigmoid(-x) - math.log(epsilon))


def nca(pair: Pair, beta: float) -> Tensor:
    """Return the noise-contrastive loss of two answers: Chen et al., 2024, arXiv 2402.05369."""
    up, down = beta * pair.up, beta * pair.down
    return -logsigmoid(up) - (logsigmoid(-up) + logsigmoid(-down)) / 2


def sppo_hard(pair: Pair, beta: float) -> Tensor:
    """Return (up - 1 / (2 beta))^2 + (down + 1 / (2 beta))^2: Wu et al., 2024, arXiv 2405.00675."""
    half = 1 / (2 * beta)
    return (pair.up - half) ** 2 + (pair.down + half) ** 2


def aot(pair: Pair, beta: float, epsilon: float = 0.0) -> Tensor:
    """Return DPO's loss of sorted log-ratios, for the whole batch: Melnyk et al., 2024, arXiv 2406.05882.

    Here the policy's preferences are matched with the reference's.
    """
    policy = (pair.chosen - pair.rejected).sort(0).values
    reference = (pair.chosen_reference - pair.rejected_reference).sort(0).values
    return logistic(policy - reference, beta, epsilon)


def aot_pair(pair: Pair, beta: float, epsilon: float = 0.0) -> Tensor:
    """Return aot's loss where what is gained by the chosen is matched with that of the rejected."""
    return logistic(pair.up.sort(0).values - pair.down.sort(0).values, beta, epsilon)


def apo_zero(pair: Pair, beta: float) -> Tensor:
    """Return 1 - s(beta up) + s(beta down): D'Oosterlinck et al., 2024, arXiv 2408.06266.

    For chosen answers that are better than the model's own.
    """
    return 1 - (beta * pair.up).sigmoid() + (beta * pair.down).sigmoid()


def apo_down(pair: Pair, beta: float) -> Tensor:
    """Return s(beta up) + 1 - s(beta (up - down)): as apo_zero, for a model better than what was chosen."""
    return (beta * pair.up).sigmoid() + 1 - (beta * (pair.up - pair.down)).sigmoid()


def jensen_shannon(pair: Pair, beta: float, epsilon: float = 0.0) -> Tensor:
    """Return DPO's loss under Jensen and Shannon's divergence: Wang et al., 2023, arXiv 2309.16240."""
    return logistic(pair.margin - (softplus(pair.up) - softplus(pair.down)), beta, epsilon)


def alpha(pair: Pair, beta: float, coefficient: float = 1.0, epsilon: float = 0.0) -> Tensor:
    """Return DPO's loss under the alpha divergence: Wang et al., 2023, arXiv 2309.16240.

    Exponents are cut off where float32 would end.
    """
    most = math.log(torch.finfo(pair.up.dtype).max)
    down, up = ((-coefficient * ratio).clamp_max(most).exp() for ratio in (pair.down, pair.up))
    return logistic((down - up) / coefficient, beta, epsilon)


def kto_pair(pair: Pair, beta: float) -> Tensor:
    """Return KTO's loss of pairs, (2 B), chosen first: trl 0.7, whose divergence is of the other answers."""
    far_up, far_down = (ratio.mean().clamp_min(0) for ratio in (pair.up, pair.down))
    return torch.cat(
        (1 - (beta * (pair.up - far_down)).sigmoid(), 1 - (beta * (far_up - pair.down)).sigmoid())
    )


def simpo(pair: Pair, beta: float, gamma: float, epsilon: float = 0.0) -> Tensor:
    """Return DPO's loss less a margin gamma: Meng et al., 2024, arXiv 2405.14734, equation 6.

    pair: means over an answer's tokens, without reference.
    """
    return logistic(pair.margin - gamma / beta, beta, epsilon)


def odds_ratio(pair: Pair) -> Tensor:
    """Return log s(log odds of the chosen - log odds of the rejected), (B): ORPO adds -beta times its mean.

    Hong et al., 2024, arXiv 2403.07691, equation 7. pair: means over an answer's tokens, without reference.
    """
    odds = pair.margin - (torch.log1p(-pair.chosen.exp()) - torch.log1p(-pair.rejected.exp()))
    return logsigmoid(odds)


@dataclass(frozen=True)
class Desirable:
    """Answers that are liked, or not, each by itself: log pi/ref of the liked (N) and of the others (M)."""

    liked: Tensor
    disliked: Tensor


def divergence(policy: Tensor, reference: Tensor) -> Tensor:
    """Return the mean log pi/ref of answers to other prompts, detached, 0 at least."""
    alike(policy=policy, reference=reference)
    return (policy - reference).mean().detach().clamp_min(0)


def kto(judged: Desirable, far: Tensor, beta: float, weights: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """Return 1 - s(beta (up - far)) of the liked and 1 - s(beta (far - down)) of the others, (N + M).

    Ethayarajh et al., 2024, arXiv 2402.01306. far: `divergence`. weights: of liked and others.
    """
    liked = 1 - (beta * (judged.liked - far)).sigmoid()
    others = 1 - (beta * (far - judged.disliked)).sigmoid()
    return torch.cat((weights[0] * liked, weights[1] * others))


def apo_zero_unpaired(judged: Desirable, beta: float, weights: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """Return apo_zero's two terms of answers that are no pairs, (N + M)."""
    liked, others = 1 - (beta * judged.liked).sigmoid(), (beta * judged.disliked).sigmoid()
    return torch.cat((weights[0] * liked, weights[1] * others))
