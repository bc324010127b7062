"""Rankings: reward models that learn which of two answers is better, and RRHF, which needs no such model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from torch.nn.utils.rnn import pad_sequence

from ...errors import RequestError
from .next_token import IGNORED
from .shapes import alike


def reward_pair(chosen: Tensor, rejected: Tensor, margin: Tensor | None = None) -> Tensor:
    """Return the mean of -log s(chosen - rejected - margin): Ouyang et al., 2022, arXiv 2203.02155, eq. 1.

    Rewards (*B) of two answers each. margin (*B): by how much the chosen was found better (Touvron et al.,
    2023, arXiv 2307.09288, equation 2). Raises RequestError for another shape: a margin (B) of rewards (B, 1)
    would be that of every pair.
    """
    margin = torch.zeros_like(chosen) if margin is None else margin
    alike(chosen=chosen, rejected=rejected, margin=margin)
    return -logsigmoid(chosen - rejected - margin).mean()


def centred(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Return the mean of (chosen + rejected)^2, which keeps rewards about 0.

    Eisenstein et al., 2023, arXiv 2312.09244. Raises RequestError for shapes that differ.
    """
    alike(chosen=chosen, rejected=rejected)
    return ((chosen + rejected) ** 2).mean()


def score(each: Tensor, length: Tensor, penalty: float = 1.0) -> Tensor:
    """Return sum(log p) / length^penalty of candidates, (K): Yuan et al., 2023, arXiv 2304.05302, equation 1.

    each: log p of their tokens, (K, L), 0 where none counts. length (K): that of the answers, as the paper
    writes; GanjinZero/RRHF's train.py computes it from labels that it had overwritten, and so has L for all.
    """
    return each.sum(-1) / length**penalty


def rank(scores: Tensor, rewards: Tensor) -> Tensor:
    """Return the sum of p[i] - p[j] over candidates of which j is the better and p finds i likelier.

    RRHF, equation 2. scores and rewards (K): rewards that are equal say nothing. Raises RequestError for
    other shapes.
    """
    alike(scores=scores, rewards=rewards)
    ahead = scores[:, None] - scores[None, :]  # i before j
    better = rewards[None, :] > rewards[:, None]
    return ahead[better & (ahead > 0)].sum()


def imitation(each: Tensor, rewards: Tensor) -> Tensor:
    """Return -mean(log p) of the best candidate over the whole row: RRHF's second term, equation 4.

    each (K, L), rewards (K). As executed: the paper has a sum over the answer, the code a mean over L, where
    what does not count is 0. The first of several that are best.
    """
    return -each[rewards.argmax()].mean()


def candidates(
    query: Tensor, answers: Sequence[Tensor], *, longest: int, padding: int
) -> tuple[Tensor, Tensor]:
    """Return what a model reads, (K, L), and the label of what follows each token, (K, L), shifted already.

    query int64 (Q); answers int64 (n) each, from their own BOS to the end; cut where both pass `longest`.
    GanjinZero/RRHF, train.py, DataCollatorForSupervisedDataset. Raises RequestError for a query that leaves
    no room.
    """
    room = longest - len(query)
    if room < 1 or not len(query):
        raise RequestError(f"a query of {len(query)} tokens leaves no room for answers in {longest}")
    cut = [answer[:room] for answer in answers]
    ids = [torch.cat((query, answer)) for answer in cut]
    before, last = query.new_full((len(query) - 1,), IGNORED), query.new_full((1,), IGNORED)
    labels = [torch.cat((before, answer, last)) for answer in cut]
    return (
        pad_sequence(ids, batch_first=True, padding_value=padding),
        pad_sequence(labels, batch_first=True, padding_value=IGNORED),
    )
