"""From the work of a step to logits: one forward pass for all, or each sequence by itself."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Several
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ..cache import Pool
from ..context import Paged
from ..models import Model
from .scheduler import Work
from .sequence import Sequence


class Mixture(Protocol):
    """Adapters beside a model, and which of them the rows of a forward pass have (adapters/mixed.py)."""

    def attach(self, name: str, path: str | Path) -> None:
        """Read an adapter and put it beside the model. Raises RequestError, with nothing attached."""
        ...

    def detach(self, name: str) -> None:
        """Let go of an adapter."""
        ...

    def rows(self, assignment: Several[str | None]) -> AbstractContextManager[object]:
        """Say for the forward passes within which adapter each token row has."""
        ...


class Runner:
    """A model over a pool of pages.

    unit: 1 computes a step as one forward pass. More computes each sequence by itself, its prompt in pieces
    of `unit` tokens and what it wrote token by token: calls of shapes that depend on the sequence alone, so
    that its numbers do too, whatever the kernels round by.
    """

    def __init__(self, model: Model, pool: Pool, mixture: Mixture | None, *, unit: int) -> None:
        self._model, self._pool, self._mixture, self._unit = model, pool, mixture, unit
        self._device = next(model.parameters()).device

    @torch.inference_mode()
    def run(self, works: Several[Work]) -> list[Tensor | None]:
        """Return float32 logits of what follows each work's last token and each of its guesses.

        (1 + guesses, V) a work; None where tokens of the sequence are still to be computed.
        """
        if self._unit == 1:
            return self._together(works)
        return [self._alone(work) for work in works]

    def _together(self, works: Several[Work]) -> list[Tensor | None]:
        tokens, starts = [], []
        for work in works:
            begin = work.sequence.done
            starts.append(begin)
            tokens.append([*work.sequence.tokens[begin : begin + work.count], *work.guesses])
        wanted = [1 + len(w.guesses) if w.count == w.sequence.pending else 0 for w in works]
        logits = self.forward([work.sequence for work in works], tokens, starts, wanted)
        rows = iter(logits.split([count for count in wanted if count]) if any(wanted) else ())
        return [next(rows) if count else None for count in wanted]

    def _alone(self, work: Work) -> Tensor | None:
        sequence, logits = work.sequence, None
        for begin, end in self._parts(work):
            last = end == len(sequence.tokens)
            logits = self.forward([sequence], [sequence.tokens[begin:end]], [begin], [int(last)])
        return logits if work.count == sequence.pending else None

    def _parts(self, work: Work) -> Iterator[tuple[int, int]]:
        sequence, begin = work.sequence, work.sequence.done
        stop = begin + work.count
        while begin < stop:
            if begin < sequence.whole:
                end = sequence.whole
            elif begin < sequence.begun:
                end = min((begin // self._unit + 1) * self._unit, sequence.begun)
            else:
                end = begin + 1
            yield begin, end
            begin = end

    def forward(
        self,
        sequences: Several[Sequence],
        tokens: Several[list[int]],
        starts: Several[int],
        wanted: Several[int],
    ) -> Tensor:
        """Compute tokens of sequences from a position on; return the logits of each one's last `wanted`."""
        flat, spans, positions, picked = list[int](), [], list[int](), list[int]()
        for one, start, count in zip(tokens, starts, wanted, strict=True):
            begin = len(flat)
            flat += one
            positions += range(start, start + len(one))
            spans.append((begin, len(flat)))
            picked += range(len(flat) - count, len(flat))
        tables = [torch.tensor(each.pages, device=self._device) for each in sequences]
        prompts = [each.prompt for each in sequences if each.prompt is not None]
        where = torch.tensor(positions, device=self._device)
        ctx = Paged(where, self._pool, spans, tables, prompts if len(prompts) == len(tables) else None)
        ids = torch.tensor(flat, device=self._device)
        if self._mixture is None:
            return self._logits(ids, ctx, picked)
        adapters = [each.adapter for each, (a, b) in zip(sequences, spans, strict=True) for _ in range(a, b)]
        with self._mixture.rows(adapters):
            return self._logits(ids, ctx, picked)

    def _logits(self, ids: Tensor, ctx: Paged, picked: list[int]) -> Tensor:
        hidden = self._model.hidden(ids, ctx)
        if not picked:
            return hidden.new_empty(0)
        if len(picked) < len(ids):
            hidden = hidden[torch.tensor(picked, device=self._device)]
        return self._model.head(hidden).float()  # type: ignore[no-any-return]
