"""A tokenizer of bytes: for looking at the prompts of a model whose own tokenizer is not on this machine."""

from __future__ import annotations

from collections.abc import Iterable

from . import bpe, patterns, stream
from .pipeline import Added, Model, PipelineTokenizer, Special


def bare(control: Iterable[str]) -> PipelineTokenizer:
    """Return a tokenizer that spells text in its bytes; control tokens, by their spelling, come after them.

    What it encodes has the right text, and the right owner of each character; the model has other tokens.
    """
    added = tuple(Added(256 + i, name) for i, name in enumerate(dict.fromkeys(control)))
    special = Special(control={token.content: token.id for token in added})
    return bpe.byte_level(
        Model("BPE", dict(stream.BYTE_OF), merges=[]), patterns.byte_level(), None, special, added
    )
