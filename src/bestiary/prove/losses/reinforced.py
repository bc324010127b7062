"""PPO and C-RLFT: rewards and weights, losses and gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor

from ...train.objectives import conditioned, next_token
from ...train.objectives import reinforce as rl
from .case import Case

_PENALTIES = {"kl": rl.penalty, "abs": rl.absolute_penalty, "mse": rl.squared_penalty}
# Steps between two reports of trl's controllers in the case.
_SAMPLES = {"adaptive_kl": 256, "adaptive_kl_fast": 64}
_FAST = rl.AdaptiveCoefficient(0.1, 2.0, 400.0)


def ppo(case: Case) -> None:
    """Compare a step of PPO: penalties, rewards, advantages, losses, gradients and what is logged."""
    mask = rl.answers(case["attention_mask"].bool(), case["query_lengths"], case["response_lengths"])
    for name, how in case.variants.items():
        case.check(f"{name}.masks", mask)
        _step(case, name, how, mask)
    for name, coefficient in (("adaptive_kl", rl.AdaptiveCoefficient()), ("adaptive_kl_fast", _FAST)):
        values = [coefficient.value]
        for divergence in case["adaptive_kl.current"].tolist():
            coefficient = coefficient.after(divergence, _SAMPLES[name])
            values.append(coefficient.value)
        case.check(f"{name}.value", torch.tensor(values))
    moments, rows = rl.RunningMoments(), []
    for scores in case["running_moments.scores"]:
        moments = moments.after(scores)
        rows.append([scores.mean(), scores.std(), moments.mean, moments.std, moments.variance])
    case.check("running_moments.batchmean_batchstd_mean_std_var", torch.tensor(rows))


def _said(case: Case, logits: Tensor) -> Tensor:
    """Return the log-probability of each token that was said, (B, T - 1)."""
    return next_token.log_probabilities(*next_token.shifted(logits, case["input_ids"]))


def _step(case: Case, name: str, how: Mapping[str, Any], mask: Tensor) -> None:
    old, reference = _said(case, case["logits"]), _said(case, case["ref_logits"])
    if how["kl_penalty"] == "full":
        penalties = rl.full_penalty(case["logits"][:, :-1], case["ref_logits"][:, :-1])
    else:
        penalties = _PENALTIES[how["kl_penalty"]](old, reference)
    rewards = rl.token_rewards(penalties, case["scores"], mask, how["init_kl_coef"])
    values = case["values"][:, :-1] * mask
    usual = {
        "logprobs": old, "ref_logprobs": reference, "kls": penalties, "rewards": rewards,
        "values_masked": values,
        "non_score_rewards": -how["init_kl_coef"] * penalties, "mean_kl": (penalties * mask).sum(-1).mean(),
    }  # fmt: skip
    for key, tensor in usual.items():
        case.check(f"{name}.{key}", tensor)
    rewards = rewards * mask
    if how["whiten_rewards"]:
        rewards = rl.scaled(rewards, mask)
    ahead = rl.advantages(values, rewards, gamma=how["gamma"], lam=how["lam"])
    returns, advantage = ahead + values, rl.whitened(ahead, mask)
    case.check(f"{name}.returns", returns)
    case.check(f"{name}.advantages", advantage)
    _losses(case, name, how, _Played(old, values, returns, advantage, mask))


@dataclass(frozen=True)
class _Played:
    """What the old policy said and earned."""

    said: Tensor
    values: Tensor
    returns: Tensor
    advantage: Tensor
    mask: Tensor


def _losses(case: Case, name: str, how: Mapping[str, Any], old: _Played) -> None:
    logits, each = case.learned("new_logits"), case.learned("new_values")
    said, values, mask = _said(case, logits), each[:, :-1], old.mask
    policy, cut = rl.policy_losses(said, old.said, old.advantage, how["cliprange"])
    value, cut_value = rl.value_losses(values, old.values, old.returns, how["cliprange_value"])
    sane = rl.within(said, old.said, mask, how["ratio_threshold"])
    policy_loss, value_loss = sane * rl.mean(policy, mask), sane * rl.mean(value, mask)
    loss = policy_loss + how["vf_coef"] * value_loss
    apart = said - old.said
    stats = {
        "loss.policy": policy_loss, "loss.value": value_loss, "loss.total": loss,
        "policy.advantages_mean": rl.mean(old.advantage, mask),
        "policy.approxkl": rl.mean(rl.squared_penalty(said, old.said), mask),
        "policy.policykl": rl.mean(-apart, mask), "policy.clipfrac": rl.mean(cut, mask),
        "policy.entropy": rl.mean(rl.entropy(logits[:, :-1]), mask),
        "returns.mean": rl.mean(old.returns, mask), "returns.var": rl.variance(old.returns, mask),
        "val.vpred": rl.mean(values, mask), "val.error": rl.mean((values - old.returns) ** 2, mask),
        "val.clipfrac": rl.mean(cut_value, mask),
        "val.mean": rl.mean(old.values, mask), "val.var": rl.variance(old.values, mask),
    }  # fmt: skip
    for key, tensor in stats.items():
        case.check(f"{name}.stats.{key}", tensor)
    case.check(f"{name}.new_logprobs", said)
    case.check(f"{name}.pg_loss", policy_loss)
    case.check(f"{name}.vf_loss_scaled", how["vf_coef"] * value_loss)
    case.check(f"{name}.loss", loss)
    case.check_gradients(loss, {f"{name}.grad_new_logits": logits, f"{name}.grad_new_values": each})


def crlft(case: Case) -> None:
    """Compare weighted conversations, their loss, and how they are packed for several devices."""
    for name, how in case.variants.items():
        rows = [
            conditioned.conversation(_turns(case, index, said, how["per_sequence_loss"]), start=1, end=2)
            for index, said in enumerate(case.meta["conversations"])
        ]
        row = conditioned.joined(rows)
        case.check(f"{name}.nz_input_ids", row.ids)
        case.check(f"{name}.nz_position_ids", row.positions)
        case.check(f"{name}.nz_shifted_label_ids", row.labels.where(row.labels != next_token.IGNORED, 0))
        case.check(f"{name}.nz_shifted_loss_weights", row.weights)
        case.check(f"{name}.seqlens", row.lengths)
        case.check(f"{name}.num_seqs", row.totals)
        hidden = case.learned("hidden")
        logits, total = hidden @ case["lm_head"].T, row.totals.sum()
        loss = conditioned.weighted(logits, row.labels, row.weights)
        case.check(f"{name}.loss_sum", loss)
        case.check(f"{name}.loss", loss / total)
        right = conditioned.weighted_accuracy(logits, row.labels, row.weights)
        case.check(f"{name}.accuracy", right / total)
        case.check_gradients(loss / total, {f"{name}.grad_hidden": hidden})
        rounded = row.weights.bfloat16()
        case.check(f"{name}.nz_shifted_loss_weights_bf16", rounded)
        case.check(f"{name}.loss_bf16_weights", conditioned.weighted(logits, row.labels, rounded) / total)
    _packing(case)


def _turns(case: Case, index: int, said: Mapping[str, Any], as_one: bool) -> list[conditioned.Turn]:
    turns = []
    for place, item in enumerate(said["items"]):
        role = case.meta["role_prefix"][f"{item['role']}|{said['condition']}"].split()
        text = case[f"conv.{index}.{place}.content"].tolist()
        turns.append(conditioned.Turn([int(id) for id in role], text, item["weight"]))
    return [turn.as_one() for turn in turns] if as_one else turns


def _packing(case: Case) -> None:
    how, lengths = case.meta["multipack"], case["multipack.lengths"].tolist()
    # OpenChat's order of an epoch.
    order = numpy.random.default_rng(how["seed"] + how["epoch"]).permutation(len(lengths)).tolist()
    batches = conditioned.multipack([lengths[i] for i in order], how["capacity"], how["num_replicas"])
    texts = [float(sum(map(len, ranks))) for ranks in batches]
    for rank in range(how["num_replicas"]):
        case.check(f"multipack.rank{rank}.totseqs", torch.tensor(texts))
        for place, ranks in enumerate(batches):
            case.check(f"multipack.rank{rank}.batch{place}", [order[i] for i in ranks[rank]])
