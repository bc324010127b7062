"""One answer as it is written: a token chosen from logits, what it adds to the text, whether that was all.

Whoever computes the logits, alone or in a batch, holds an Answer for each sequence and gives it a row a step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import CheckpointError
from .constrain import Constraint, impossible
from .params import SamplingParams
from .sample import History, Logprob, draw, keep, logprobs, narrow, penalise, uniform
from .stops import StopStrings
from .vocabulary import Bounds, Vocabulary

# stop: an end token or a stop string. length: max_tokens, or a full context. abort: interrupted.
# content_filter: the operator of a hosted model kept the rest to itself.
FinishReason = Literal["stop", "length", "abort", "content_filter"]


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one token adds to an answer.

    text: what can be shown by now, which need not be this token's own. ids: the token; empty in the chunk
    that reports an interrupt, and in those of a hosted model. finish_reason: set in an answer's last chunk.
    index: which of the n answers.
    """

    text: str
    ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    index: int = 0
    logprobs: dict[int, Logprob] | None = None


class Answer:
    """One of the answers to a request.

    begun: the tokens that stand before it, which penalties look back on. seed: of the request; a draw depends
    on it, on the answer's index and on how many tokens came before, and on nothing else.
    """

    def __init__(
        self,
        params: SamplingParams,
        vocabulary: Vocabulary,
        bounds: Bounds,
        begun: Sequence[int],
        *,
        seed: int,
        index: int,
    ) -> None:
        self.index, self.count = index, 0
        self._params, self._size, self._bounds, self._seed = params, vocabulary.size, bounds, seed
        self._constraint: Constraint | None = bounds.constraint
        self._decoder, self._stops = vocabulary.decoder(), StopStrings(params.stop or ())
        self._begun = None if _forgets(params) else begun
        self._history: History | None = None

    @property
    def left(self) -> int:
        """How many tokens it may still have."""
        return self._bounds.length - self.count

    def take(self, logits: Tensor) -> Chunk:
        """Choose the next token from float32 logits (V,) and return what it adds.

        The chunk with a finish_reason is the last. Raises CheckpointError for logits that are not finite, and
        RequestError where the constraints leave nothing to follow.
        """
        logits = logits[: self._size]
        if self._begun is not None and self._history is None:
            self._history = History.of(torch.tensor(self._begun, device=logits.device), len(logits))
        token = self._choose(logits)
        entry = None if self._params.logprobs is None else logprobs(logits, token, self._params.logprobs)
        if self._history is not None:
            self._history.add(token)
        if self._constraint is not None and token not in self._bounds.ends:
            self._constraint = self._constraint.after(token)
        self.count += 1
        return self._shown(token, entry)

    def aborted(self) -> Chunk:
        """Return the last chunk of an answer that ends here: the text that was held back."""
        return Chunk(self._rest()[0], (), "abort", self.index)

    def _shown(self, token: int, entry: dict[int, Logprob] | None) -> Chunk:
        ended, full = token in self._bounds.ends, self.count == self._bounds.length
        text, hit = self._stops.push("" if ended else self._decoder.push(token))
        if (ended or full) and not hit:
            rest, hit = self._rest()
            text += rest
        reason: FinishReason | None = "stop" if ended or hit else "length" if full else None
        return Chunk(text, (token,), reason, self.index, entry)

    def _rest(self) -> tuple[str, bool]:
        """Return all text that is still held back, and whether it completed a stop string."""
        text, hit = self._stops.push(self._decoder.flush())
        return (text, True) if hit else (text + self._stops.flush(), False)

    @torch.inference_mode()
    def _choose(self, logits: Tensor) -> int:
        params, limit = self._params, self._constraint
        logits = penalise(logits, params, self._history)
        if limit is not None:
            logits = limit.narrow(logits)
        peak, token = logits.max(-1)  # one pass for both; the maximum with a NaN is NaN
        if not math.isfinite(peak.item()):
            if limit is not None and peak.item() == -math.inf:
                raise impossible()
            raise CheckpointError(
                f"the model gives logits that are not finite (their maximum is {peak.item()})",
                remedy="Compare the weight files with their published hashes, or compute in float32",
            )
        return int(token.item()) if params.greedy else self._drawn(logits, self.count)

    @torch.inference_mode()
    def guess(self, logits: Tensor, ahead: int) -> int:
        """Return the token that another model's logits (V,) would give it, `ahead` tokens on.

        By the same draw, and without what penalties and constraints would say by then.
        """
        logits = logits[: self._size]
        return int(logits.argmax()) if self._params.greedy else self._drawn(logits, self.count + ahead)

    def _drawn(self, logits: Tensor, step: int) -> int:
        params = self._params
        point = torch.tensor(uniform(self._seed, self.index, step), dtype=torch.float64, device=logits.device)
        if params.top_k <= 0:
            return int(draw(keep(logits, params), point).item())
        logits, ids = narrow(logits, params.top_k)
        return int(ids[draw(keep(logits, params), point)].item())


def _forgets(params: SamplingParams) -> bool:
    return params.repetition_penalty == 1 and params.frequency_penalty == 0 and params.presence_penalty == 0
