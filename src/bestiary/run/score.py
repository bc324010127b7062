"""How likely a text is to a model, how good to a reward model, and how far apart two models are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ..context import Cache, Full, Prompt, Stream
from ..errors import RequestError
from ..models import EncoderDecoder, Writer
from .session import common

# Rows of logits held at once: 128 of a vocabulary of 49,152 are 25 MB of float32.
ROWS = 128


def log_likelihoods(model: Writer, ids: Sequence[int]) -> Tensor:
    """Return ln p(ids[i + 1] | ids[: i + 1]) of each i: float64 (T - 1,), on the CPU.

    The first token is given, not scored; of a prefix language model, so are the P tokens of the prefix, which
    have seen each other: (T - 1 - P,). Raises RequestError when nothing is left to score.
    """
    return continuations(model, [ids], [1])[0]


@torch.inference_mode()
def continuations(
    model: Writer,
    sequences: Sequence[Sequence[int]],
    begins: Sequence[int],
    *,
    source: Sequence[int] | None = None,
) -> list[Tensor]:
    """Return ln p of each token from begins[i] on, at least 1, of sequence i: float64, on the CPU.

    What sequences have in common with the one before, as choices of one prompt do, is computed once. source:
    what an encoder-decoder answers; the sequences begin with the tokens model.start then. Raises RequestError
    when nothing is left to score, and for an encoder-decoder without a source.
    """
    if source is None and isinstance(model, EncoderDecoder):
        raise RequestError("an encoder-decoder tells how likely an answer to a source is: give source=")
    like = next(model.parameters())
    if short := [ids for ids in sequences if len(ids) < 2]:
        raise RequestError(f"{len(short[0])} token(s) leave nothing to score; give at least 2")
    room = max(map(len, sequences)) - 1
    cache = Cache.empty(model, 1, room, dtype=like.dtype, device=like.device)
    read = None if source is None else model.prompt(torch.tensor([source], device=like.device))
    scored: list[Tensor] = []
    done: Sequence[int] = ()
    before: Prompt | None = None
    for ids, begin in zip(sequences, begins, strict=True):
        tokens = torch.tensor(ids, device=like.device)
        prompt = read or model.prompt(tokens[None])
        given = max(begin - 1, 0 if prompt.prefix is None else int(prompt.prefix))
        if given >= len(ids) - 1:
            raise RequestError(f"the prefix takes {given} of {len(ids)} tokens and leaves nothing to score")
        shared = 0 if before is None or not prompt.continues(before) else common(done, ids)
        steps = _steps(model, cache, tokens, prompt, (min(shared, given), given))
        scored.append(torch.cat(list(steps)).cpu())
        done, before = ids[:-1], prompt
    return scored


def _steps(
    model: Writer, cache: Cache, tokens: Tensor, prompt: Prompt, places: tuple[int, int]
) -> Iterator[Tensor]:
    """Yield ln p of the tokens behind `given`, ROWS at a time. places: what the cache holds, and `given`."""
    start, given = places
    last = len(tokens) - 1
    first = start + ROWS if prompt.prefix is None else max(start + ROWS, int(prompt.prefix) + 1)
    for begin, end in pairwise([start, *range(first, last, ROWS), last]):  # a prefix is computed at once
        step, skipped = Stream.at(cache, begin, end - begin, prompt), max(given - begin, 0)
        if begin + skipped >= end:
            model.hidden(tokens[None, begin:end], step)
            continue
        logits = model(tokens[None, begin:end], step, (0, slice(skipped, None))).double()
        wanted = logits.gather(-1, tokens[begin + skipped + 1 : end + 1, None])[:, 0]
        yield wanted - logits.logsumexp(-1)


def perplexity(model: Writer, ids: Sequence[int], *, window: int | None = None) -> float:
    """Return exp of the mean negative log-likelihood a token.

    window: cut the text into pieces of this many tokens, each by itself, its first token given; None takes it
    whole. (llama.cpp scores the second half of each piece only, so its figures are lower.)
    Raises RequestError when no piece has two tokens.
    """
    size = len(ids) if window is None else window
    pieces = [ids[i : i + size] for i in range(0, len(ids), max(size, 1))]
    scored = [log_likelihoods(model, piece) for piece in pieces if len(piece) > 1]
    if not scored:
        raise RequestError(f"{len(ids)} token(s) in windows of {size} leave nothing to score")
    return math.exp(-torch.cat(scored).mean().item())


@torch.inference_mode()
def rewards(model: Writer, tokens: Tensor, seen: Tensor | None = None) -> Tensor:
    """Return what a reward model or a classifier says of each text: its head at the last real token.

    tokens int64 (B, T); seen: which are real, bool (B, T), None for all; padding may be on either side.
    Returns (B, outputs of the head).
    """
    real = torch.ones_like(tokens, dtype=torch.bool) if seen is None else seen.bool()
    ctx = Full.of(tokens, real, model.prompt(tokens, real))
    rows = torch.arange(len(tokens), device=tokens.device)
    return model(tokens, ctx, (rows, real.cumsum(1).argmax(1)))  # type: ignore[no-any-return]


def kl_divergence(reference: Tensor, logits: Tensor) -> float:
    """Return KL(reference || model) in nats, the mean over rows. Both are logits (N, V)."""
    total = 0.0
    for theirs, ours in _rows(reference, logits):
        p, q = theirs.double().log_softmax(-1), ours.double().log_softmax(-1)
        total += (p.exp() * (p - q)).sum().item()
    return total / len(reference)


def top1_agreement(reference: Tensor, logits: Tensor) -> float:
    """Return the fraction of rows in which both find the same token likeliest. Both are logits (N, V)."""
    same = [int((theirs.argmax(-1) == ours.argmax(-1)).sum()) for theirs, ours in _rows(reference, logits)]
    return sum(same) / len(reference)


def _rows(reference: Tensor, logits: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    shapes = [list(reference.shape), list(logits.shape)]
    if shapes[0] != shapes[1] or reference.ndim != 2 or len(reference) == 0:
        raise RequestError(f"logits of shapes {shapes[0]} and {shapes[1]} should both be (rows, vocabulary)")
    for begin in range(0, len(reference), ROWS):
        yield reference[begin : begin + ROWS], logits[begin : begin + ROWS]
