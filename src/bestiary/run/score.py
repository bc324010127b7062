"""How likely a text is to a model, and how far apart two models are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..context import Cache, Stream
from ..errors import RequestError
from ..models import Decoder

# Rows of logits held at once: 128 of a vocabulary of 49,152 are 25 MB of float32.
ROWS = 128


@torch.inference_mode()
def log_likelihoods(model: Decoder, ids: Sequence[int]) -> Tensor:
    """Return ln p(ids[i + 1] | ids[: i + 1]) of each i: float64 (T - 1,), on the CPU.

    The first token is given, not scored. Raises RequestError for fewer than two tokens.
    """
    if len(ids) < 2:
        raise RequestError(f"{len(ids)} token(s) leave nothing to score; give at least 2")
    like, scored = next(model.parameters()), len(ids) - 1
    cache = Cache.empty(model, 1, scored, dtype=like.dtype, device=like.device)
    tokens, parts = torch.tensor(ids, device=like.device), []
    prompt = model.prompt(tokens[None])
    for begin in range(0, scored, ROWS):
        end = min(begin + ROWS, scored)
        step = Stream.at(cache, begin, end - begin, prompt)
        logits = model(tokens[None, begin:end], step)[0].double()
        wanted = logits.gather(-1, tokens[begin + 1 : end + 1, None])[:, 0]
        parts.append(wanted - logits.logsumexp(-1))
    return torch.cat(parts).cpu()


def perplexity(model: Decoder, ids: Sequence[int], *, window: int | None = None) -> float:
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
