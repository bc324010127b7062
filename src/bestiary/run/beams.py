"""Beam search: the likeliest answers as wholes, found by following the best few beginnings side by side.

By default hypotheses and scores are those of transformers' generate(num_beams=...) (generation/utils.py,
`_beam_search`); BeamParams says what varies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import CheckpointError
from .constrain import Constraint, Every, impossible
from .params import BeamParams
from .session import Session
from .vocabulary import Bounds, Vocabulary


@dataclass(frozen=True)
class Hypothesis:
    """One answer that was found.

    ids: all of its tokens, also the one that ended it. logprob: the sum of their log-probabilities. score:
    what hypotheses were compared by. finish_reason: length for one that max_tokens or the context cut off.
    """

    ids: tuple[int, ...]
    logprob: float
    score: float
    finish_reason: Literal["stop", "length"]


@dataclass(frozen=True)
class _Beam:
    """A beginning that is followed. row: which row of the last step it goes on from."""

    ids: tuple[int, ...]
    logprob: float
    row: int
    constraint: Constraint

    def then(self, row: int, token: int, logprob: float) -> _Beam:
        return _Beam((*self.ids, token), logprob, row, self.constraint.after(token))


def beam_search(
    session: Session, prompt: Sequence[int], params: BeamParams, vocabulary: Vocabulary
) -> list[Hypothesis]:
    """Return the params.n best answers to a prompt of token ids that were found, the best first.

    The session holds the prompt afterwards; its memory is copied for each beam, the source of an
    encoder-decoder is not. Raises RequestError as generate does, and CheckpointError for logits that are not
    finite.
    """
    bounds = Bounds.of(session.room, prompt, params, vocabulary)
    logits = session.prefill(prompt)[None]
    branches = session.branches(params.width)
    beams, ended = [_Beam((), 0.0, 0, bounds.constraint or Every())], list[Hypothesis]()
    # So many that a whole width of them goes on even when every beam's likeliest next tokens end it.
    count = max(2, 1 + len(bounds.ends)) * params.width
    for length in range(1, bounds.length + 1):
        following: list[_Beam] = []
        for rank, (row, token, logprob) in enumerate(_likeliest(logits, beams, count, vocabulary.size)):
            over = token in bounds.ends
            if over or length == bounds.length:
                if rank < params.width:  # the others are there to go on, not to be answers
                    ids = (*beams[row].ids, token)
                    score = logprob / params.penalty(length, params.length_penalty)
                    ended.append(Hypothesis(ids, logprob, score, "stop" if over else "length"))
            elif len(following) < params.width:
                following.append(beams[row].then(row, token, logprob))
        ended = sorted(ended, key=lambda one: -one.score)[: params.width]
        if not following or _settled(ended, following[0], length, bounds.length, params):
            break
        beams = following
        # Where a constraint leaves fewer, rows are computed that nobody reads.
        rows = beams + beams[:1] * (params.width - len(beams))
        logits = branches.feed([one.row for one in rows], [one.ids[-1] for one in rows])
    if not ended:
        raise impossible()
    return ended[: params.n]


def _settled(ended: list[Hypothesis], best: _Beam, length: int, most: int, params: BeamParams) -> bool:
    """Tell whether the answers are settled, `best` being the likeliest beginning of `length` tokens."""
    if len(ended) < params.width:
        return False
    # "never" asks for certainty: what the beginning would score with no further loss at the kindest length.
    certain = params.early_stopping == "never" and params.length_penalty > 0
    attainable = best.logprob / params.penalty(most if certain else length, params.length_penalty)
    return params.early_stopping is True or attainable <= ended[-1].score


@torch.inference_mode()
def _likeliest(logits: Tensor, beams: Sequence[_Beam], count: int, size: int) -> list[tuple[int, int, float]]:
    """Return the likeliest continuations of all beams: (row, token, log-probability of the whole).

    logits (rows, V), of which the first are the beams'. size: how many ids may be chosen.
    """
    every = logits[: len(beams)].log_softmax(-1)
    if every.isnan().any():
        raise CheckpointError(
            "the model gives logits that are not finite",
            remedy="Compare the weight files with their published hashes, or compute in float32",
        )
    before = torch.tensor([[one.logprob] for one in beams], device=logits.device)
    narrowed = [one.constraint.narrow(row[:size]) for one, row in zip(beams, every, strict=True)]
    whole = torch.stack(narrowed) + before
    values, places = whole.flatten().topk(min(count, whole.numel()))
    found = zip(places.tolist(), values.tolist(), strict=True)
    return [(*divmod(place, size), value) for place, value in found if value > -math.inf]
