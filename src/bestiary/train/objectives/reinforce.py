"""PPO on texts: a penalty for leaving the reference, advantages, clipped losses.

Schulman et al., 2017, arXiv 1707.06347; on texts Ziegler et al., 2019, arXiv 1909.08593, and Ouyang et al.,
2022, arXiv 2203.02155. As huggingface/trl up to 0.11 computes it (trainer/ppo_trainer.py, core.py).
Tensors of tokens are float32 (B, T), one number for each token that is said: log-probabilities, values,
rewards. mask bool (B, T): the tokens of answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import RequestError
from .shapes import alike


def answers(real: Tensor, queries: Tensor, lengths: Tensor) -> Tensor:
    """Return which tokens are said by the policy, bool (B, T - 1).

    real: which tokens of rows are no padding, bool (B, T); queries and lengths int64 (B): of the prompt and
    of its answer. Padding may stand on either side. Raises RequestError for rows that are shorter.
    """
    count = real.sum(-1)
    if bool((queries + lengths > count).any() | (queries < 1).any()):
        raise RequestError(
            f"queries of {queries.tolist()} and answers of {lengths.tolist()} tokens are not in rows of "
            f"{count.tolist()}"
        )
    start = real.int().argmax(-1) + queries - 1  # what stands there says the answer's first token
    places = torch.arange(real.shape[-1] - 1, device=real.device)
    return (places >= start[:, None]) & (places < (start + lengths)[:, None])


def penalty(policy: Tensor, reference: Tensor) -> Tensor:
    """Return log pi/ref of the tokens said: an estimate of the divergence, and below 0 for some."""
    return policy - reference


def absolute_penalty(policy: Tensor, reference: Tensor) -> Tensor:
    """Return |log pi/ref|."""
    return (policy - reference).abs()


def squared_penalty(policy: Tensor, reference: Tensor) -> Tensor:
    """Return (log pi/ref)^2 / 2: Schulman, 2020, joschu.net/blog/kl-approx.html, k2."""
    return (policy - reference) ** 2 / 2


def full_penalty(policy: Tensor, reference: Tensor) -> Tensor:
    """Return the divergence of pi from ref over the vocabulary, (B, T). Logits (B, T, V) of both."""
    alike(policy=policy, reference=reference)
    exact, other = (logits.log_softmax(-1, dtype=torch.float32) for logits in (policy, reference))
    return (exact.exp() * (exact - other)).sum(-1)


def token_rewards(penalties: Tensor, scores: Tensor, mask: Tensor, coefficient: float) -> Tensor:
    """Return -coefficient times the penalties, and the score on each answer's last token, (B, T).

    scores (B): what the reward model says of each. Outside of the mask the rewards mean nothing.
    """
    alike(penalties=penalties, mask=mask)
    last = mask * torch.arange(1, mask.shape[-1] + 1, device=mask.device)
    return (-coefficient * penalties).scatter_add(-1, last.argmax(-1, keepdim=True), scores[:, None])


def advantages(values: Tensor, rewards: Tensor, *, gamma: float = 1.0, lam: float = 0.95) -> Tensor:
    """Return sum over l of (gamma lam)^l (r[t+l] + gamma v[t+l+1] - v[t+l]), (B, T).

    Schulman et al., 2015, arXiv 1506.02438, equation 16. Both should be 0 outside of answers:
    multiply them by the mask.
    """
    alike(values=values, rewards=rewards)
    after = torch.cat((values[:, 1:], torch.zeros_like(values[:, :1])), 1)
    each, ahead = rewards + gamma * after - values, torch.zeros_like(values[:, 0])
    out = torch.empty_like(each)
    for t in range(each.shape[1] - 1, -1, -1):
        ahead = each[:, t] + gamma * lam * ahead
        out[:, t] = ahead
    return out


def mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of what the mask holds."""
    alike(values=values, mask=mask)
    return (values * mask).sum() / mask.sum()


def variance(values: Tensor, mask: Tensor) -> Tensor:
    """Return the unbiased variance of what the mask holds."""
    count = mask.sum()
    return mean((values - mean(values, mask)) ** 2, mask) * count / (count - 1)


def scaled(values: Tensor, mask: Tensor) -> Tensor:
    """Return values brought to a variance of 1, their mean as it was."""
    middle = mean(values, mask)
    return middle + whitened(values, mask)


def whitened(values: Tensor, mask: Tensor) -> Tensor:
    """Return values brought to a mean of 0 and a variance of 1 within the mask."""
    return (values - mean(values, mask)) * (variance(values, mask) + 1e-8).rsqrt()


def policy_losses(new: Tensor, old: Tensor, advantage: Tensor, clip: float = 0.2) -> tuple[Tensor, Tensor]:
    """Return -min(ratio A, clip(ratio) A) of each token, (B, T), and where the clip decided, bool.

    ratio = exp(new - old), of log-probabilities. Schulman et al., 2017, equation 7.
    """
    alike(new=new, old=old, advantage=advantage)
    ratio = (new - old).exp()
    free, clipped = -advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip)
    return free.maximum(clipped), clipped > free


def value_losses(new: Tensor, old: Tensor, returns: Tensor, clip: float = 0.2) -> tuple[Tensor, Tensor]:
    """Return max((v - R)^2, (clip(v) - R)^2) / 2 of each token, (B, T), and where the clip decided, bool.

    clip(v): v no farther from the old value than clip. openai/baselines, ppo2.
    """
    alike(new=new, old=old, returns=returns)
    free = (new - returns) ** 2
    clipped = (new.maximum(old - clip).minimum(old + clip) - returns) ** 2
    return free.maximum(clipped) / 2, clipped > free


def within(new: Tensor, old: Tensor, mask: Tensor, threshold: float = 10.0) -> Tensor:
    """Return 1 where the mean ratio is at most a threshold, else 0: a batch that would break the policy."""
    return (mean((new - old).exp(), mask) <= threshold).float()


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy of each distribution, (*L), in nats. logits (*L, V)."""
    each = logits.log_softmax(-1, dtype=torch.float32)
    return -(each.exp() * each).sum(-1)


@dataclass(frozen=True)
class AdaptiveCoefficient:
    """A penalty's coefficient that holds a divergence near its target: Ziegler et al., 2019, section 2.2.

    value: the coefficient. horizon: in how many samples it may change by a fifth of what is too much.
    """

    value: float = 0.2
    target: float = 6.0
    horizon: float = 10_000.0

    def __post_init__(self) -> None:
        if not (self.target > 0 and self.horizon > 0):
            raise RequestError(f"target {self.target} and horizon {self.horizon} should be above 0")

    def after(self, divergence: float, samples: int) -> AdaptiveCoefficient:
        """Return the coefficient after `samples` samples of a divergence."""
        error = min(max(divergence / self.target - 1, -0.2), 0.2)
        value = self.value * (1 + error * samples / self.horizon)
        return AdaptiveCoefficient(value, self.target, self.horizon)


@dataclass(frozen=True)
class RunningMoments:
    """Mean and variance of all scores that were seen, batch by batch: Chan et al., 1979.

    variance: divided by the count; std by one less. trl, trainer/utils.py, begins with 1e-24 scores of
    variance 1.
    """

    mean: float = 0.0
    variance: float = 1.0
    count: float = 1e-24

    @property
    def std(self) -> float:
        """The unbiased deviation of all scores. Of one score alone there is none, and it is NaN."""
        left = self.count - 1
        return float((self.variance * self.count / left) ** 0.5) if left > 0 else float("nan")

    def after(self, scores: Tensor) -> RunningMoments:
        """Return the moments with a batch of scores (N). Raises RequestError for none."""
        if not scores.numel():
            raise RequestError("a batch of no scores has no mean")
        number, count = scores.numel(), self.count + scores.numel()
        apart = scores.double().mean().item() - self.mean
        spread = scores.double().var(correction=0).item() * number + self.variance * self.count
        spread += apart**2 * self.count * number / count
        return RunningMoments(self.mean + apart * number / count, spread / count, count)
