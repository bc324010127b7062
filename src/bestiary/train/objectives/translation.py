"""Translation: the Transformer of 2017, taught by pairs with smoothed labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...context import Full
from ...errors import RequestError
from ...models import EncoderDecoder


def smoothed_cross_entropy(logits: Tensor, targets: Tensor, epsilon: float) -> Tensor:
    """Return the loss of each target, (*L), float32: 1 - epsilon on it, the rest on all others alike.

    Szegedy et al., 2016, arXiv 1512.00567, 7, as the Transformer of 2017 was trained (fairseq,
    label_smoothed_cross_entropy.py). torch's own label_smoothing gives a share of epsilon to the target too.
    logits (*L, V), targets int64 (*L). Raises RequestError for an epsilon outside of [0, 1).
    """
    if not 0 <= epsilon < 1:
        raise RequestError(f"epsilon = {epsilon} should be from 0 to below 1")
    every = logits.log_softmax(-1, dtype=torch.float32)
    target = every.gather(-1, targets[..., None])[..., 0]
    others = epsilon / (logits.shape[-1] - 1)
    return -(1 - epsilon - others) * target - others * every.sum(-1)


@dataclass(frozen=True)
class Pairs:
    """Sources and their answers, int64 (B, S) and (B, T), and which of their tokens are real, bool.

    An answer holds its end token, and not those that every answer begins with: the model knows them.
    """

    source: Tensor
    answer: Tensor
    source_real: Tensor | None = None
    answer_real: Tensor | None = None


def translation(
    model: EncoderDecoder, batch: Pairs, *, epsilon: float = 0.1
) -> tuple[Tensor, dict[str, float]]:
    """Return the mean smoothed loss of the answers' tokens, and the mean without smoothing as `nll`.

    Vaswani et al., 2017, section 5.4, which has epsilon 0.1.
    """
    rows = len(batch.answer)
    start = torch.tensor(model.start, device=batch.answer.device).expand(rows, -1)
    seen_before = torch.cat((start, batch.answer[:, :-1]), 1)  # padded on the right: it is seen by none
    prompt = model.prompt(batch.source, batch.source_real)
    logits = model(seen_before, Full.of(seen_before, None, prompt))[:, start.shape[1] - 1 :]
    real = (torch.ones_like(batch.answer) if batch.answer_real is None else batch.answer_real).bool()
    logits, targets = logits[real], batch.answer[real]
    loss = smoothed_cross_entropy(logits, targets, epsilon).mean()
    with torch.no_grad():
        nll = smoothed_cross_entropy(logits, targets, 0.0).mean()
    return loss, {"nll": nll.item()}
