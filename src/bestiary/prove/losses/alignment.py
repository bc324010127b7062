"""Preferences, rankings and rewards: losses and gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ...train.objectives import next_token, preference, ranking
from ...train.objectives.preference import Pair
from .case import Case

_Loss = Callable[[Pair, Mapping[str, Any]], Tensor]

# By trl's loss_type, and its f_divergence_type where that is not the usual one.
_DPO: Mapping[str, _Loss] = {
    "sigmoid": lambda pair, how: preference.dpo(pair, how["beta"], how["label_smoothing"]),
    "hinge": lambda pair, how: preference.hinge(pair, how["beta"]),
    "ipo": lambda pair, how: preference.ipo(pair, how["beta"]),
    "robust": lambda pair, how: preference.robust(pair, how["beta"], how["label_smoothing"]),
    "exo_pair": lambda pair, how: preference.exo(pair, how["beta"]),
    "nca_pair": lambda pair, how: preference.nca(pair, how["beta"]),
    "sppo_hard": lambda pair, how: preference.sppo_hard(pair, how["beta"]),
    "aot": lambda pair, how: preference.aot(pair, how["beta"]),
    "aot_pair": lambda pair, how: preference.aot_pair(pair, how["beta"]),
    "apo_zero": lambda pair, how: preference.apo_zero(pair, how["beta"]),
    "apo_down": lambda pair, how: preference.apo_down(pair, how["beta"]),
    "js_divergence": lambda pair, how: preference.jensen_shannon(pair, how["beta"]),
    "alpha_divergence": lambda pair, how: preference.alpha(pair, how["beta"]),
    "simpo": lambda pair, how: preference.simpo(
        pair, how["beta"], how["simpo_gamma"], how["label_smoothing"]
    ),
}
_SIDES = ("chosen", "rejected")


def _said(case: Case, key: str, side: str, average: bool) -> tuple[Tensor, Tensor]:
    """Return logits whose gradient is asked for, and the log-probabilities of the answers."""
    logits = case.learned(f"{key}{side}_logits")
    case[f"{side}_input_ids"], case[f"{side}_attention_mask"]  # what the logits are of
    count = next_token.answer_mean if average else next_token.answer_sum
    return logits, count(logits, case[f"{side}_labels"])


def _report(case: Case, name: str, pair: Pair, beta: float) -> None:
    case.check(f"{name}.policy_chosen_logps", pair.chosen)
    case.check(f"{name}.policy_rejected_logps", pair.rejected)
    for side, reward in zip(_SIDES, preference.rewards(pair, beta), strict=True):
        case.check(f"{name}.{side}_rewards", reward)


def _gradients(case: Case, name: str, loss: Tensor, logits: Mapping[str, Tensor]) -> None:
    case.check(f"{name}.loss", loss)
    case.check_gradients(loss, {f"{name}.grad_{side}_logits": logits[side] for side in _SIDES})


def dpo(case: Case) -> None:
    """Compare DPO and its variants."""
    for name, how in case.variants.items():
        average = how["loss_type"] == "ipo"
        policy = {side: _said(case, "", side, average) for side in _SIDES}
        reference = [_said(case, "reference_", side, average)[1].detach() for side in _SIDES]
        pair = Pair(policy["chosen"][1], policy["rejected"][1], *reference)
        if name == "kto_pair":
            losses = preference.kto_pair(pair, how["beta"])
            case.check(f"{name}.losses", losses)
            case.check(f"{name}.loss", losses.mean())
            continue
        bent = how["f_divergence_type"]
        kind = how["loss_type"] if bent == "reverse_kl" else bent
        losses = _DPO[kind](Pair.free(pair.chosen, pair.rejected) if how["reference_free"] else pair, how)
        case.check(f"{name}.losses", losses)
        case.check(f"{name}.reference_chosen_logps", pair.chosen_reference)
        case.check(f"{name}.reference_rejected_logps", pair.rejected_reference)
        _report(case, name, pair, how["beta"])
        _gradients(case, name, losses.mean(), {side: policy[side][0] for side in _SIDES})
    sums = [_said(case, start, side, False)[1] for start in ("", "reference_") for side in _SIDES]
    case.check("ipo.original_repo_losses", preference.ipo(Pair(*sums), case.variants["ipo"]["beta"]))


def simpo(case: Case) -> None:
    """Compare SimPO and CPO, each with the share of imitation that a variant has."""
    for name, how in case.variants.items():
        average = how["loss_type"] in ("simpo", "ipo")
        policy = {side: _said(case, "", side, average) for side in _SIDES}
        pair = Pair.free(policy["chosen"][1], policy["rejected"][1])
        losses = _DPO[how["loss_type"]](pair, how)
        nll = next_token.next_token(policy["chosen"][0], case["chosen_labels"]) * (how["cpo_alpha"] > 0)
        case.check(f"{name}.losses", losses)
        case.check(f"{name}.nll_loss", nll)
        _report(case, name, pair, how["beta"])
        loss = losses.mean() + how["cpo_alpha"] * nll
        _gradients(case, name, loss, {side: policy[side][0] for side in _SIDES})


def orpo(case: Case) -> None:
    """Compare ORPO, whose imitation is of prompts too."""
    for name, how in case.variants.items():
        policy = {side: _said(case, "", side, True) for side in _SIDES}
        pair = Pair.free(policy["chosen"][1], policy["rejected"][1])
        losses = how["beta"] * preference.odds_ratio(pair)
        whole = next_token.by_role(case["chosen_input_ids"], case["chosen_attention_mask"].bool())
        nll = next_token.next_token(policy["chosen"][0], whole)
        case.check(f"{name}.losses", losses)
        case.check(f"{name}.nll_loss", nll)
        _report(case, name, pair, how["beta"])
        _gradients(case, name, nll - losses.mean(), {side: policy[side][0] for side in _SIDES})


def kto(case: Case) -> None:
    """Compare KTO, and APO of answers that are no pairs."""
    for name, how in case.variants.items():
        liked, disliked = (case.learned(f"policy_{side}_logps") for side in _SIDES)
        judged = preference.Desirable(
            liked - case["reference_chosen_logps"], disliked - case["reference_rejected_logps"]
        )
        other = (case["policy_KL_logps"], case["reference_KL_logps"])
        weights = (how["desirable_weight"], how["undesirable_weight"])
        far = torch.zeros(())
        if how["loss_type"] == "kto":
            far = preference.divergence(*(other[::-1] if how["kl_swapped"] else other))
            losses = preference.kto(judged, far, how["beta"], weights)
        else:
            losses = preference.apo_zero_unpaired(judged, how["beta"], weights)
        loss = losses.mean()
        case.check(f"{name}.kl", far)
        case.check(f"{name}.losses", losses)
        case.check(f"{name}.loss", loss)
        case.check(f"{name}.chosen_rewards", how["beta"] * judged.liked)
        case.check(f"{name}.rejected_rewards", how["beta"] * judged.disliked)
        case.check_gradients(
            loss,
            {f"{name}.grad_policy_chosen_logps": liked, f"{name}.grad_policy_rejected_logps": disliked},
        )


def reward(case: Case) -> None:
    """Compare the loss of reward models, with margins and centred."""
    for name, how in case.variants.items():
        chosen, rejected = (case.learned(f"rewards_{side}") for side in _SIDES)
        loss = ranking.reward_pair(chosen, rejected, case["margin"] if how["margin"] else None)
        loss = loss + (how["center_rewards_coefficient"] or 0) * ranking.centred(chosen, rejected)
        case.check(f"{name}.loss", loss)
        case.check_gradients(loss, {f"{name}.grad_chosen": chosen, f"{name}.grad_rejected": rejected})


def rrhf(case: Case) -> None:
    """Compare RRHF as its code is executed, and as the paper writes it."""
    for name, how in case.variants.items():
        kept = (
            slice(-2, None) if how["only_use_provide"] else slice(None, -2 * how["only_use_sample"] or None)
        )
        logits = case.learned("logits")
        labels, rewards = case["labels"][kept], case["rw_scores"][0, kept]
        each = next_token.log_probabilities(logits[kept], labels)
        sft, answer = ranking.imitation(each, rewards), (labels != next_token.IGNORED).sum(-1)
        executed = torch.full_like(answer, labels.shape[1])
        for start, length in ((name, executed), (f"{name}.fresh", answer)):
            scores = ranking.score(each, length, how["length_penalty"])
            ranked = ranking.rank(scores, rewards)
            loss = how["rrhf_weight"] * ranked + sft
            case.check(f"{start}.scores", scores)
            case.check(f"{start}.rrhf_loss", ranked)
            case.check(f"{start}.loss", loss)
            if start == name:
                case.check_gradients(loss, {f"{name}.grad_logits": logits})
        case.check(f"{name}.logit_label", each)
        case.check(f"{name}.sft_loss", sft)
    answers = [case[key] for key in case.keys("collate.response_ids.")]
    ids, labels = ranking.candidates(case["collate.query_ids"], answers, longest=24, padding=0)
    case.check("collate.input_ids", ids)
    case.check("collate.labels", labels)
    case.check("collate.attention_mask", ids != 0)
    case.require("collate.scores", len(case["collate.scores"][0]) == len(ids))
