"""Packing: several documents in one row, none of which sees another; the loss is that of each alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...context import Full
from ...errors import RequestError
from .next_token import IGNORED
from .shapes import alike


@dataclass(frozen=True)
class Packed:
    """Documents end to end, each tensor int64 (1, T).

    positions: where each token stands in its document. documents: which document it is in, from 0.
    labels: the first token of each document is IGNORED, for no document says how the next begins.
    """

    ids: Tensor
    labels: Tensor
    positions: Tensor
    documents: Tensor

    @property
    def bounds(self) -> Tensor:
        """Where documents begin, and the end of the last, int32 (documents + 1)."""
        lengths = self.documents[0].bincount().cumsum(0)
        return torch.cat((lengths.new_zeros(1), lengths)).int()

    @property
    def seen(self) -> Tensor:
        """Who may see whom, bool (1, T, T), queries first: tokens of one document, the later the earlier."""
        same = self.documents[:, :, None] == self.documents[:, None, :]
        return same & (self.positions[:, :, None] >= self.positions[:, None, :])

    def context(self) -> Full:
        """Return the context in which a model reads the row as documents alone."""
        return Full(self.positions, self.seen)


def pack(documents: Sequence[Tensor], labels: Sequence[Tensor] | None = None) -> Packed:
    """Return documents, int64 (n) each, as one row. labels: like them; the tokens themselves unless told.

    Raises RequestError for no document, an empty one, or labels that do not fit.
    """
    if not documents or not all(len(document) for document in documents):
        raise RequestError("a row is packed of one document or more, and none of them is empty")
    each = documents if labels is None else labels
    for document, own in zip(documents, each, strict=True):
        alike(document=document, labels=own)
    first = [torch.arange(len(document), device=document.device) for document in documents]
    ids, wanted, positions = (torch.cat(tuple(parts))[None] for parts in (documents, each, first))
    index = torch.cat([torch.full_like(document, i) for i, document in enumerate(documents)])[None]
    return Packed(ids, wanted.where(positions > 0, IGNORED), positions, index)
