"""Prefix encoders as ChatGLM's files hold them: pre_seq_len, prefix_projection (THUDM/ChatGLM-6B)."""

from __future__ import annotations

from torch import Tensor

from ..bricks.prefixes import Prefix, Prefixed, ProjectedPrefix
from ..config import Config
from ..context import Context
from ..models import Decoder
from ..tensors import Rules

TENSORS: Rules = {
    "transformer.prefix_encoder.embedding": "prefix.table",
    "transformer.prefix_encoder.trans.0": "prefix.up",
    "transformer.prefix_encoder.trans.2": "prefix.down",
}


class PrefixTuned(Decoder):
    """A decoder whose layers see a learned prefix before every sequence."""

    def __init__(self, model: Decoder, prefix: Prefix) -> None:
        super().__init__(
            model.embed, model.layers, model.norm, model.head, positions=model.positions, reader=model.reader
        )
        self.prefix = prefix

    def hidden(self, tokens: Tensor, ctx: Context) -> Tensor:
        return super().hidden(tokens, Prefixed(ctx, self.prefix(tokens.device)))


def tuned(c: Config, model: Decoder, width: int, *, table: int | None = None) -> Decoder:
    """Return a model with the prefix that a config.json asks for, or as it is.

    width: channels of the stream. table: width of a row before it is projected, if not that of all keys and
    values.
    """
    projected, count = c.flag("prefix_projection", False), c.optional("pre_seq_len")
    if count is None:
        return model
    if projected:
        return PrefixTuned(model, ProjectedPrefix(count, model.slots(), table=table, hidden=width))
    return PrefixTuned(model, Prefix(count, model.slots()))
