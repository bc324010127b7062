"""Marian, Pegasus, M2M-100 and NLLB: BART with positions that are computed, and no norm on the embedding."""

from __future__ import annotations

from ..bricks import SplitSinusoids, TimingSignal
from ..config import Config
from ..models import EncoderDecoder
from ..tensors import Rules
from . import bart
from .heads import Heads

# Marian's was trained, and no file of it lacks it.
HEADS = Heads(bart.HEADS.attach, {"MarianMTModel": ("final_logits_bias",)})


def TENSORS(c: Config) -> Rules:  # noqa: N802  # a table in most families
    """Name the tensors. Files from before 2021 hold the table of positions too."""
    return bart.TENSORS(c, learned=False)


def build(c: Config) -> EncoderDecoder:
    """Compose the bricks that a Marian, Pegasus or M2M-100 config.json describes."""
    kind = c.text("model_type")
    for key, computed in (("normalize_embedding", False), ("static_position_embeddings", True)):
        c.must(key, computed)
    c.get("extra_pos_embeddings", None)  # rows of a table that is computed
    if kind != "m2m_100":
        return bart.compose(c, kind == "pegasus", SplitSinusoids)
    first = c.count("pad_token_id", 1, least=0) + 1
    return bart.compose(c, True, lambda: TimingSignal(offset=first))
