"""BERT, and what is a BERT by another name: MiniLM, Contriever, BGE, E5."""

from __future__ import annotations

from torch import nn

from ..config import Config
from ..models import Encoder
from ..tensors import Rules
from .encoders import NORMS, blocks, body, classified, classifier, masked, pairs, pooled, segmented, spans
from .heads import Heads

# The first release called what scales and shifts a norm gamma and beta, and bert-base-uncased still does.
OLD: Rules = {
    f"{path}:{theirs}": f"{ours}:{leaf}"
    for path, ours in (
        *((f"[bert.]{path}", ours) for path, ours in NORMS.items()),
        ("cls.predictions.transform.LayerNorm", "head.norm"),
    )
    for theirs, leaf in (("gamma", "weight"), ("beta", "bias"))
}


def TENSORS(c: Config) -> Rules:  # noqa: N802  # a table in most families
    """Name the tensors. What `classifier` judges, tokens or texts, the architecture says."""
    return {
        **OLD,
        **body("bert"),
        "cls.predictions.transform.dense": "head.dense",
        "cls.predictions.transform.LayerNorm": "head.norm",
        "cls.predictions:bias": "head.out:bias",
        "cls.predictions.decoder": "head.out",
        "cls.seq_relationship": "judge",
        "classifier": classifier(c),
        "qa_outputs": "head",
    }


def build(c: Config) -> Encoder:
    """Compose the bricks that a BERT config.json describes, without heads."""
    for key, computed in (("directionality", "bidi"), ("pooler_type", "first_token_transform")):
        c.must(key, computed)
    width = c.count("hidden_size")
    embed = nn.Embedding(c.count("vocab_size"), width)
    return Encoder(embed, blocks(c), positions=segmented(c, width))


HEADS = Heads(
    {
        "pooler.dense": pooled(nn.Tanh),
        "cls.predictions.transform.dense": masked("hidden_act"),
        "cls.seq_relationship": pairs,
        "classifier": classified,
        "qa_outputs": spans,
    },
    {
        "ForMaskedLM": ("cls.predictions.transform.dense",),
        "ForPreTraining": ("pooler.dense", "cls.predictions.transform.dense", "cls.seq_relationship"),
        "ForNextSentencePrediction": ("pooler.dense", "cls.seq_relationship"),
        "ForSequenceClassification": ("pooler.dense", "classifier"),
        "ForMultipleChoice": ("pooler.dense", "classifier"),
        "ForTokenClassification": ("classifier",),
        "ForQuestionAnswering": ("qa_outputs",),
    },
    usual={"BertModel": ("pooler.dense",)},
)
