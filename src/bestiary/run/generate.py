"""One sequence, token by token: prefill, then a step a token, as an iterator of chunks.

Keys and values live in a Session that the caller holds; nothing here remembers anything between two calls.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence

from torch import Tensor

from .answer import Answer, Chunk, FinishReason
from .params import SamplingParams
from .session import Session
from .vocabulary import Bounds, Vocabulary

__all__ = ["Chunk", "FinishReason", "generate"]


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
    return _answers(session, prompt, params, vocabulary, Bounds.of(session.room, prompt, params, vocabulary))


def _answers(
    session: Session, prompt: Sequence[int], params: SamplingParams, vocabulary: Vocabulary, bounds: Bounds
) -> Iterator[Chunk]:
    seed = secrets.randbits(63) if params.seed is None else params.seed
    logits = session.prefill(prompt)
    begun = tuple(session.ids)
    # One after the other, not as a batch: a matmul of several rows rounds otherwise than of one, and the
    # first of n answers would no longer be the one that n = 1 gives.
    for index in range(params.n):
        session.rewind(len(begun))
        yield from _written(
            session, logits, Answer(params, vocabulary, bounds, begun, seed=seed, index=index)
        )


def _written(session: Session, logits: Tensor, answer: Answer) -> Iterator[Chunk]:
    try:
        while True:
            chunk = answer.take(logits)
            yield chunk
            if chunk.finish_reason is not None:
                return
            logits = session.feed(chunk.ids)
    except KeyboardInterrupt:
        yield answer.aborted()
        raise
