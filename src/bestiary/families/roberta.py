"""RoBERTa, XLM-R, CamemBERT: BERT without segments, whose positions begin after the row of padding."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..config import Config
from ..models import Encoder
from ..tensors import Rules
from .encoders import blocks, body, classified, classifier, masked, named, pooled, segmented, spans
from .heads import Heads


def TENSORS(c: Config) -> Rules:  # noqa: N802  # a table in most families
    """Name the tensors."""
    return {**body("roberta"), **heads(c, "roberta")}


def heads(c: Config, prefix: str) -> Rules:
    """Name the tensors of the heads, and those of a pooler beside which stands a classifier with its own."""
    spare: Rules = {f"[{prefix}.]pooler.dense": "unused"} if named(c, "ForSequenceClassification") else {}
    return {
        **spare,
        "lm_head.dense": "head.dense",
        "lm_head.layer_norm": "head.norm",
        "lm_head:bias": "head.out:bias",
        "lm_head.decoder": "head.out",
        "classifier.dense": "pooler.0",
        "classifier.out_proj": "judge",
        "classifier": classifier(c),
        "qa_outputs": "head",
    }


def build(c: Config) -> Encoder:
    """Compose the bricks that a RoBERTa config.json describes, without heads."""
    width = c.count("hidden_size")
    positions = segmented(c, width, offset=c.count("pad_token_id", 1, least=0) + 1)
    return Encoder(nn.Embedding(c.count("vocab_size"), width), blocks(c), positions=positions)


def _pooled(c: Config, model: Any, bias: bool) -> None:
    """Keep a pooler for saving where nothing is computed with it: cardiffnlp's models of tweets."""
    pooled(nn.Tanh)(c, model, bias)
    if named(c, "ForSequenceClassification"):
        model.unused, model.pooler = model.pooler[0], nn.Identity()


HEADS = Heads(
    {
        "pooler.dense": _pooled,
        "lm_head.dense": masked(),
        "classifier.dense": pooled(nn.Tanh),
        "classifier.out_proj": classified,
        "classifier": classified,
        "qa_outputs": spans,
    },
    {
        "ForMaskedLM": ("lm_head.dense",),
        "ForSequenceClassification": ("classifier.dense", "classifier.out_proj"),
        "ForMultipleChoice": ("pooler.dense", "classifier"),
        "ForTokenClassification": ("classifier",),
        "ForQuestionAnswering": ("qa_outputs",),
    },
)
