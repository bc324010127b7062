"""What stands between tokens and blocks, and between blocks and logits."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import Activation
from ..context import Context
from ..errors import RequestError


class Scale(nn.Module):
    """x times a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class RoundedScale(Scale):
    """x times a constant that is first rounded to x's type, as in JAX: in bfloat16, Gemma's 55.43 is 55.5."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.tensor(self.factor, dtype=x.dtype, device=x.device)


class Cap(nn.Module):
    """limit * tanh(x / limit): logits that stay within a limit (Gemma 2, arXiv 2408.00118)."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        return self.limit * torch.tanh(x / self.limit)


class Unplaced(nn.Module):
    """The stream as it is: positions enter elsewhere, or nowhere."""

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        return x


class Learned(nn.Module):
    """norm(x plus a learned vector for each position).

    offset: the row of position 0 (OPT leaves two free). norm: none unless given.
    """

    def __init__(self, positions: int, width: int, *, offset: int = 0, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.table, self.offset = nn.Embedding(positions + offset, width), offset
        self.norm = norm or nn.Identity()

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        return self.norm(x + self.at(ctx.positions))  # type: ignore[no-any-return]

    def at(self, positions: Tensor) -> Tensor:
        """Return the vectors of positions (*L), (*L, width). Raises RequestError for one beyond the table."""
        try:
            return self.table(positions + self.offset)  # type: ignore[no-any-return]
        except IndexError as error:  # the CPU's own check: to look first is to wait for a GPU at each step
            learned, count = self.table.num_embeddings - self.offset, int(positions.max()) + 1
            raise RequestError(
                f"{count} tokens are more than the {learned} positions that were learned; give fewer"
            ) from error


class Segmented(Learned):
    """norm(x plus a learned vector for each position and one for each segment): BERT, arXiv 1810.04805."""

    def __init__(self, positions: int, width: int, segments: int, **kind: Any) -> None:
        super().__init__(positions, width, **kind)
        self.segments = nn.Embedding(segments, width)

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        segments = torch.zeros_like(ctx.positions) if ctx.segments is None else ctx.segments
        # In this order: float32 sums depend on it.
        x = x + self.segments(segments) + self.at(ctx.positions)
        return self.norm(x)  # type: ignore[no-any-return]


class Docks(nn.Module):
    """Positions added to a stream in which vectors stand in place of some embedded tokens.

    They may come from an encoder of text, images or sound: MetaLM, arXiv 2206.06336. positions: what is added
    to tokens and vectors alike.
    """

    def __init__(self, positions: nn.Module) -> None:
        super().__init__()
        self.inner = positions

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        if (docked := ctx.docked) is not None:
            vectors, where = docked
            x = torch.where(where[..., None], vectors.to(x.dtype), x)
        return self.inner(x, ctx)  # type: ignore[no-any-return]


class SoftPrompted(nn.Module):
    """Embeds tokens, and prompts that were learned in place of words: token -i is the i-th of those.

    Lester et al., 2021, arXiv 2104.08691, as CPM-2 has it (arXiv 2106.10715). words: what embeds tokens.
    tokens int64 (*L) -> (*L, width).
    """

    def __init__(self, words: nn.Module, prompts: int, width: int) -> None:
        super().__init__()
        self.words, self.prompts = words, nn.Embedding(prompts, width)

    def forward(self, tokens: Tensor) -> Tensor:
        learned = self.prompts((-1 - tokens).clamp_min(0))
        return torch.where((tokens < 0)[..., None], learned, self.words(tokens.clamp_min(0)))


class Blanked(nn.Module):
    """Embeds tokens; the padding reads as zeros, whatever its row holds: tensor2tensor, modalities.py.

    Its answers begin with the padding. tokens int64 (*L) -> (*L, width).
    """

    def __init__(self, vocabulary: int, width: int, *, padding: int = 0) -> None:
        super().__init__()
        self.words, self.padding = nn.Embedding(vocabulary, width), padding

    def forward(self, tokens: Tensor) -> Tensor:
        return self.words(tokens) * (tokens != self.padding)[..., None]  # type: ignore[no-any-return]


class Aimed(nn.Module):
    """x plus the vector of one of so many kinds of answers, the same at every position: tensor2tensor.

    rows: kinds; row: the one that is wanted (transformer.py, transformer_prepare_encoder). x (*L, width).
    """

    def __init__(self, rows: int, width: int, *, row: int) -> None:
        super().__init__()
        self.table, self.row = nn.Embedding(rows, width), row

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table(torch.tensor(self.row, device=x.device))  # type: ignore[no-any-return]


class NormedHead(nn.Linear):
    """Logits by the direction of each row of the weight alone: Baichuan 2, arXiv 2309.10305."""

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__(width, vocabulary, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, F.normalize(self.weight))


class MaskedHead(nn.Module):
    """Logits of what a mask hides: out(norm(act(dense x))), BERT, arXiv 1810.04805. x (*L, width).

    inner: channels of the norm, the embedding's where those are fewer; as many as of the stream unless told.
    """

    def __init__(
        self, width: int, vocabulary: int, act: Activation, norm: nn.Module, *, inner: int | None = None
    ) -> None:
        super().__init__()
        self.dense, self.act, self.norm = nn.Linear(width, inner or width), act, norm
        self.out = nn.Linear(inner or width, vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.act(self.dense(x))))  # type: ignore[no-any-return]
