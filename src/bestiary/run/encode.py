"""Many texts through a model in batches: their vectors, what heads say of them, and what masks hide.

Texts are sorted by length, so that a batch holds little padding, and results stand in the order of the texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from ..context import Context, Full
from ..errors import RequestError
from ..models import Encoder, EncoderDecoder, Model
from ..text.around import Wrapped
from .score import rewards

# Padded tokens of a batch. The widest thing that a model of 384 channels makes of 2048 tokens is 12 MB, about
# what a processor's cache holds; more is no faster there. A GPU may be given more.
TOKENS = 2048

# Texts done, texts in all: called after each batch.
Progress = Callable[[int, int], None]
# States (B, T, width) and which of them are real, bool (B, T) -> vectors (B, dim).
Pool = Callable[[Tensor, Tensor], Tensor]
T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """Texts of about one length. rows: which texts. tokens, segments int64 (B, T); seen bool (B, T)."""

    rows: list[int]
    tokens: Tensor
    segments: Tensor
    seen: Tensor

    @classmethod
    def of(cls, rows: list[int], texts: Sequence[Wrapped], device: torch.device) -> Batch:
        """Return these of the texts, padded on the right."""
        longest = max(len(texts[row].ids) for row in rows)
        tokens, segments = torch.zeros(2, len(rows), longest, dtype=torch.int64)
        seen = torch.zeros(len(rows), longest, dtype=torch.bool)
        for i, row in enumerate(rows):
            count = len(texts[row].ids)
            tokens[i, :count] = torch.tensor(texts[row].ids)
            segments[i, :count] = torch.tensor(texts[row].segments)
            seen[i, :count] = True
        return cls(rows, tokens.to(device), segments.to(device), seen.to(device))


def batches(lengths: Sequence[int], *, tokens: int = TOKENS) -> Iterator[list[int]]:
    """Yield the numbers of texts that go together, the longest first, so that memory is asked for at once.

    tokens: how many a batch may hold, padding counted; a longer text is a batch of its own.
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


@torch.inference_mode()
def each(
    model: Model,
    texts: Sequence[Wrapped],
    read: Callable[[Batch], Sequence[T]],
    *,
    tokens: int = TOKENS,
    progress: Progress | None = None,
) -> list[T]:
    """Return what `read` makes of each text, which it is given in batches.

    Raises RequestError for a text without tokens.
    """
    if empty := [i for i, text in enumerate(texts) if not text.ids]:
        raise RequestError(f"text {empty[0]} has no tokens: there is nothing to read")
    device, found = next(model.parameters()).device, dict[int, T]()
    for rows in batches([len(text.ids) for text in texts], tokens=tokens):
        batch = Batch.of(rows, texts, device)
        found |= zip(rows, read(batch), strict=True)
        if progress is not None:
            progress(len(found), len(texts))
    return [found[row] for row in range(len(texts))]


def states(model: Model, batch: Batch) -> Tensor:
    """Return the last states of a batch, (B, T, width): of an encoder-decoder those of its encoder."""
    if isinstance(model, EncoderDecoder):
        memory = model.prompt(batch.tokens, batch.seen, batch.segments).memory
        if memory is None:
            raise RequestError("this model keeps no states of its source")
        return memory.states
    return model.hidden(batch.tokens, context(model, batch))


def context(model: Model, batch: Batch) -> Context:
    """Return the context in which a model reads a batch. Without padding there is nothing to mask."""
    seen = None if batch.seen.all() else batch.seen
    prompt = model.prompt(batch.tokens, seen)
    if isinstance(model, Encoder):
        prompt = replace(prompt, segments=batch.segments)
    return Full.of(batch.tokens, seen, prompt)


def embed(
    model: Model,
    texts: Sequence[Wrapped],
    pool: Pool,
    *,
    tokens: int = TOKENS,
    progress: Progress | None = None,
) -> Tensor:
    """Return the vectors of texts, float32 (N, dim), on the CPU. pool: makes them of states."""

    def read(batch: Batch) -> Sequence[Tensor]:
        return pool(states(model, batch), batch.seen).float().cpu().unbind()

    return torch.stack(each(model, texts, read, tokens=tokens, progress=progress))


def verdicts(
    model: Model, texts: Sequence[Wrapped], *, tokens: int = TOKENS, progress: Progress | None = None
) -> Tensor:
    """Return what a model's head says of whole texts, float32 (N, outputs), on the CPU."""

    def read(batch: Batch) -> Sequence[Tensor]:
        if isinstance(model, Encoder):
            said = model.verdict(states(model, batch), batch.seen)
        else:
            said = rewards(model, batch.tokens, batch.seen)
        return said.float().cpu().unbind()

    return torch.stack(each(model, texts, read, tokens=tokens, progress=progress))


def tags(
    model: Encoder, texts: Sequence[Wrapped], *, tokens: int = TOKENS, progress: Progress | None = None
) -> list[Tensor]:
    """Return what a model's head says of each token, float32 (its tokens, outputs) a text, on the CPU."""

    def read(batch: Batch) -> Sequence[Tensor]:
        said = model(batch.tokens, context(model, batch)).float().cpu()
        return [row[: int(real.sum())] for row, real in zip(said, batch.seen, strict=True)]

    return each(model, texts, read, tokens=tokens, progress=progress)


def hidden_by(
    model: Encoder,
    texts: Sequence[Wrapped],
    mask: int,
    *,
    size: int,
    top: int,
    tokens: int = TOKENS,
    progress: Progress | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """Return what each mask of a text hides: probabilities float32 and ids int64 (masks, top), on the CPU.

    size: how many ids have a text. top: how many to keep, the likeliest first: all of 10,000 masks are 10 GB
    in a vocabulary of 250,000.
    """

    def read(batch: Batch) -> Sequence[tuple[Tensor, Tensor]]:
        rows, places = ((batch.tokens == mask) & batch.seen).nonzero(as_tuple=True)
        said: Tensor = model(batch.tokens, context(model, batch), (rows, places)).float()
        probabilities = said.softmax(-1)[:, :size]
        best = probabilities.topk(min(top, probabilities.shape[1]))
        counts = torch.bincount(rows.cpu(), minlength=len(batch.rows)).tolist()
        values, indices = (kept.cpu().split(counts) for kept in (best.values, best.indices))
        return list(zip(values, indices, strict=True))

    return each(model, texts, read, tokens=tokens, progress=progress)


def pseudo_log_likelihoods(model: Encoder, text: Wrapped, mask: int, *, tokens: int = TOKENS) -> Tensor:
    """Return ln p of each token of a text, given all of the others: float64 (T,), on the CPU.

    Each is hidden by a mask in turn: Salazar et al., 2020, arXiv 1910.14659. text: the special tokens around
    it are scored too.
    """
    hidden = [replace(text, ids=[*text.ids[:i], mask, *text.ids[i + 1 :]]) for i in range(len(text.ids))]
    ids = torch.tensor(text.ids)

    def read(batch: Batch) -> Sequence[Tensor]:
        places = torch.tensor(batch.rows, device=batch.tokens.device)
        rows = torch.arange(len(places), device=places.device)
        said: Tensor = model(batch.tokens, context(model, batch), (rows, places)).double()
        return said.log_softmax(-1)[rows, ids.to(rows.device)[places]].cpu().unbind()

    return torch.stack(each(model, hidden, read, tokens=tokens))
