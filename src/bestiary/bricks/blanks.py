"""Prompts with a blank to fill, and where their tokens stand: GLM, Du et al., 2021, arXiv 2103.10360.

A prompt is a text with a mask in it, then a start token; what follows fills the blank. The text sees all of
itself, the filling sees the text and what it has filled so far.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..context import Context, Prompt
from ..errors import RequestError
from .positions import Place, Plain, Rotary, unread


@dataclass(frozen=True)
class BlankReader:
    """Read where the text ends and which of its masks is filled.

    start: id of the token after the text. masks: ids of the masks; the first of them that a text holds is
    filled, where it stands first. onward: the mask whose filling stands after the text, not in its place.
    """

    start: int
    masks: tuple[int, ...]
    onward: int | None = None

    def __call__(self, tokens: Tensor, seen: Tensor | None = None) -> Prompt:
        """Return length, prefix and blank, int64 (B, 1), of prompts (B, T); places count real tokens only.

        blank is -1 where the filling stands after the text. Raises RequestError for a prompt without start or
        without mask.
        """
        real = torch.ones_like(tokens, dtype=torch.bool) if seen is None else seen
        places = real.cumsum(-1) - 1
        prefix = _first(real & (tokens == self.start), places)
        self._check(prefix, f"<sop> (token {self.start})")
        text, blank = real & (places < prefix), torch.full_like(prefix, -1)
        found = torch.zeros_like(prefix, dtype=torch.bool)
        for mask in self.masks:
            place = _first(text & (tokens == mask), places)
            if mask != self.onward:
                blank = torch.where(found, blank, place)
            found = found | (place >= 0)
        self._check(found.long() - 1, f"mask (token {' or '.join(map(str, self.masks))}) before <sop>")
        return Prompt(places[:, -1:] + 1, prefix=prefix, blank=blank)

    @staticmethod
    def _check(place: Tensor, what: str) -> None:
        if not place.is_meta and bool((place < 0).any()):  # on `meta` there are shapes, and no data
            raise RequestError(
                f"this model's prompts are a text, a mask and <sop>, and one has no {what}; add it"
            )


def _first(hits: Tensor, places: Tensor) -> Tensor:
    """Return the place of the first hit in each row, (B, 1); -1 where there is none."""
    at = hits.int().argmax(-1, keepdim=True)  # the first of several that are largest
    return torch.where(hits.any(-1, keepdim=True), places.gather(-1, at), -1)


@dataclass(frozen=True)
class BlankRotary:
    """Rotate by where a token stands in its text; a filling stands where its mask does: GLM-130B.

    THUDM/GLM-130B, generate.py, get_masks_and_position_ids.
    """

    rotary: Rotary

    def __call__(self, q: Tensor, k: Tensor, ctx: Context) -> tuple[Tensor, Tensor]:
        cos, sin = ctx.once(self, lambda: self.rotary.angles(ctx, in_text(ctx)))
        return self.rotary.turn(q, cos, sin), self.rotary.turn(k, cos, sin)


@dataclass(frozen=True)
class BlankRotary2D:
    """Rotate half of each head by the place in the text, half by the place in the blank: ChatGLM-6B.

    The rotary is that of a half. THUDM/chatglm-6b, modeling_chatglm.py, SelfAttention.
    """

    rotary: Rotary

    def __call__(self, q: Tensor, k: Tensor, ctx: Context) -> tuple[Tensor, Tensor]:
        of_text, of_blank = ctx.once(self, lambda: self._angles(ctx))
        q, k = (
            torch.cat((self.rotary.turn(a, *of_text), self.rotary.turn(b, *of_blank)), -1)
            for a, b in (q.chunk(2, -1), k.chunk(2, -1))
        )
        return q, k

    def _angles(self, ctx: Place) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        return self.rotary.angles(ctx, in_text(ctx)), self.rotary.angles(ctx, in_blank(ctx))


def in_text(ctx: Place) -> Tensor:
    """Return where each token stands in its text, like ctx.positions: a filling, where its mask stands."""
    prefix, blank = _begin(ctx)
    return torch.where((ctx.positions >= prefix) & (blank >= 0), blank, ctx.positions)


def in_blank(ctx: Place) -> Tensor:
    """Return where each token stands in its filling, from 1 at the start token; 0 in the text."""
    return (ctx.positions - _begin(ctx)[0] + 1).clamp_min(0)


def _begin(ctx: Place) -> tuple[Tensor, Tensor]:
    """Return how long the text is and where the blank is, each broadcastable to ctx.positions."""
    prompt = ctx.prompt
    if prompt is None or prompt.prefix is None or prompt.blank is None:
        raise unread()
    return prompt.prefix, prompt.blank


@dataclass(frozen=True)
class HalfPlain:
    """Plain's frequencies, rounded to float16: GLM-130B and ChatGLM-6B were trained with those.

    SwissArmyTransformer 0.2, mpu/rotary_embeddings.py. In float32 the rounding moves logits by 5e-3.
    """

    magnitude: float = 1.0

    def __call__(self, dim: int, base: float, ctx: Place) -> Tensor:
        return Plain()(dim, base, ctx).half().float()
