"""ELECTRA: a BERT that tells which words a smaller one has replaced, arXiv 2003.10555."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..bricks import MaskedHead
from ..config import Config
from ..models import Encoder
from ..tensors import Rules
from .encoders import blocks, body, classified, classifier, masked, pooled, segmented, spans
from .heads import Heads


def TENSORS(c: Config) -> Rules:  # noqa: N802  # a table in most families
    """Name the tensors. Narrow embeddings are widened after their norm."""
    return {
        **body("electra"),
        "[electra.]embeddings.LayerNorm": "positions.norm.0",
        "[electra.]embeddings_project": "positions.norm.1",
        "generator_predictions.dense": "head.dense",
        "generator_predictions.LayerNorm": "head.norm",
        "generator_lm_head": "head.out",
        "discriminator_predictions.dense": "head.dense",
        "discriminator_predictions.dense_prediction": "head.out",
        "classifier.dense": "pooler.0",
        "classifier.out_proj": "judge",
        "sequence_summary.summary": "pooler.0",
        "classifier": classifier(c),
        "qa_outputs": "head",
    }


def build(c: Config) -> Encoder:
    """Compose the bricks that an ELECTRA config.json describes, without heads."""
    width, narrow = c.count("hidden_size"), c.count("embedding_size", 128)
    positions = segmented(c, narrow)
    wider = () if narrow == width else (nn.Linear(narrow, width),)
    positions.norm = nn.Sequential(positions.norm, *wider)
    return Encoder(nn.Embedding(c.count("vocab_size"), narrow), blocks(c), positions=positions)


def _discriminator(c: Config, model: Any, bias: bool) -> None:
    """Say of each token how likely it is that it was replaced: a logit, (*L, 1)."""
    model.head = MaskedHead(c.count("hidden_size"), 1, c.activation("hidden_act", "gelu"), nn.Identity())


def _summary(c: Config, model: Any, bias: bool) -> None:
    """Summarise a text before its choices are compared."""
    for key, computed in (("summary_type", "first"), ("summary_activation", "gelu")):
        c.must(key, computed)
    c.must("summary_use_proj", True)
    pooled(nn.GELU)(c, model, bias)


HEADS = Heads(
    {
        "discriminator_predictions.dense": _discriminator,
        "generator_predictions.dense": masked(),
        "classifier.dense": pooled(nn.GELU),
        "classifier.out_proj": classified,
        "sequence_summary.summary": _summary,
        "classifier": classified,
        "qa_outputs": spans,
    },
    {
        "ForPreTraining": ("discriminator_predictions.dense",),
        "ForMaskedLM": ("generator_predictions.dense",),
        "ForSequenceClassification": ("classifier.dense", "classifier.out_proj"),
        "ForMultipleChoice": ("sequence_summary.summary", "classifier"),
        "ForTokenClassification": ("classifier",),
        "ForQuestionAnswering": ("qa_outputs",),
    },
)
