"""One sequence, token by token: prefill, then a step a token, as an iterator of chunks.

Keys and values live in a Session that the caller holds; nothing here remembers anything between two calls.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..text.stream import StreamDecoder
from .constrain import Constraint, impossible
from .params import SamplingParams
from .sample import History, Logprob, draw, keep, logprobs, narrow, penalise, uniform
from .session import Session
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


def generate(
    session: Session, prompt: Sequence[int], params: SamplingParams, vocabulary: Vocabulary
) -> Iterator[Chunk]:
    """Return the chunks of params.n answers to a prompt of token ids, one answer after the other.

    The prompt is computed once. An interrupt (Ctrl-C) while a token is computed gives one last chunk, with
    the text that was held back and finish_reason "abort"; asked for another, the iterator raises
    KeyboardInterrupt. The session stays usable.

    Raises RequestError, before anything is computed, for a prompt that is empty or leaves no room in the
    context (it is never cut), for ids outside the vocabulary and for constraints that no answer can meet (one
    that leaves nothing to follow raises it on the way); CheckpointError, on the way, for logits
    that are not finite.
    """
    return _answers(session, prompt, params, vocabulary, Bounds.of(session, prompt, params, vocabulary))


def _answers(
    session: Session, prompt: Sequence[int], params: SamplingParams, vocabulary: Vocabulary, bounds: Bounds
) -> Iterator[Chunk]:
    seed = secrets.randbits(63) if params.seed is None else params.seed
    logits = session.prefill(prompt)[: vocabulary.size]
    begin = len(session.ids)
    # One after the other, not as a batch: a matmul of several rows rounds otherwise than of one, and the
    # first of n answers would no longer be the one that n = 1 gives.
    for index in range(params.n):
        session.rewind(begin)
        tokens = _tokens(session, logits, params, bounds.constraint, (seed, index))
        yield from _text(tokens, params, index, vocabulary.decoder(), bounds)


_Chosen = tuple[int, dict[int, Logprob] | None]


def _tokens(
    session: Session,
    logits: Tensor,
    params: SamplingParams,
    limit: Constraint | None,
    stream: tuple[int, int],
) -> Iterator[_Chosen]:
    """Choose a token and feed it, without end. limit: what constrains it. stream: seed and which answer."""
    vocabulary, step = len(logits), 0
    history = _history(session.ids, params, logits)
    while True:
        token = _choose(logits, params, history, limit, (*stream, step))
        yield token, None if params.logprobs is None else logprobs(logits, token, params.logprobs)
        if history is not None:
            history.add(token)
        if limit is not None:
            limit = limit.after(token)
        logits, step = session.feed([token])[:vocabulary], step + 1


def _text(
    tokens: Iterator[_Chosen],
    params: SamplingParams,
    index: int,
    decoder: StreamDecoder,
    bounds: Bounds,
) -> Iterator[Chunk]:
    """Turn tokens into chunks: their text, stop strings, and why it ended."""
    stops = StopStrings(params.stop or ())
    try:
        for count, (token, entry) in enumerate(tokens, 1):
            ended, full = token in bounds.ends, count == bounds.length
            text, hit = stops.push("" if ended else decoder.push(token))
            if (ended or full) and not hit:
                rest, hit = _rest(decoder, stops)
                text += rest
            reason: FinishReason | None = "stop" if ended or hit else "length" if full else None
            yield Chunk(text, (token,), reason, index, entry)
            if reason is not None:
                return
    except KeyboardInterrupt:
        yield Chunk(_rest(decoder, stops)[0], (), "abort", index)
        raise


def _rest(decoder: StreamDecoder, stops: StopStrings) -> tuple[str, bool]:
    """Return all text that is still held back, and whether it completed a stop string."""
    text, hit = stops.push(decoder.flush())
    return (text, True) if hit else (text + stops.flush(), False)


@torch.inference_mode()
def _choose(
    logits: Tensor,
    params: SamplingParams,
    history: History | None,
    limit: Constraint | None,
    place: tuple[int, int, int],
) -> int:
    """Choose from logits (V,). place: seed, which answer, which token."""
    logits = penalise(logits, params, history)
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
    if params.greedy:
        return int(token.item())
    point = torch.tensor(uniform(*place), dtype=torch.float64, device=logits.device)
    if params.top_k <= 0:
        return int(draw(keep(logits, params), point).item())
    logits, ids = narrow(logits, params.top_k)
    return int(ids[draw(keep(logits, params), point)].item())


def _history(ids: Sequence[int], params: SamplingParams, logits: Tensor) -> History | None:
    if params.repetition_penalty == 1 and params.frequency_penalty == 0 and params.presence_penalty == 0:
        return None
    return History.of(torch.tensor(ids, device=logits.device), len(logits))
