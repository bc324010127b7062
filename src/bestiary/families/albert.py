"""ALBERT: a BERT whose layers share their weights, with narrow embeddings, arXiv 1909.11942."""

from __future__ import annotations

from torch import nn

from ..config import MOST_LAYERS, Config
from ..models import Encoder
from ..tensors import Rules
from .encoders import blocks, classified, classifier, masked, pairs, pooled, segmented, spans
from .heads import Heads

LAYER = {
    "attention.query": "attn.q",
    "attention.key": "attn.k",
    "attention.value": "attn.v",
    "attention.dense": "attn.o",
    "attention.LayerNorm": "attn_norm",
    "ffn": "mlp.up",
    "ffn_output": "mlp.down",
    "full_layer_layer_norm": "mlp_norm",
}
BODY: Rules = {
    "[albert.]embeddings.word_embeddings": "embed",
    "[albert.]embeddings.position_embeddings": "positions.table",
    "[albert.]embeddings.token_type_embeddings": "positions.segments",
    "[albert.]embeddings.LayerNorm": "positions.norm.0",
    "[albert.]encoder.embedding_hidden_mapping_in": "positions.norm.1",
    "[albert.]pooler": "pooler.0",
    "predictions.dense": "head.dense",
    "predictions.LayerNorm": "head.norm",
    "predictions:bias": "head.out:bias",
    "predictions.decoder": "head.out",
    "sop_classifier.classifier": "judge",
    "qa_outputs": "head",
}


def TENSORS(c: Config) -> Rules:  # noqa: N802  # a table in most families
    """Name the tensors: a group's are those of its first layer."""
    layers, groups = c.count("num_hidden_layers"), _groups(c)
    path = "[albert.]encoder.albert_layer_groups.{}.albert_layers.0.{}"
    shared: Rules = {
        path.format(i, theirs): f"layers.{-(-i * layers // groups)}.{ours}"
        for i in range(groups)
        for theirs, ours in LAYER.items()
    }
    return {**BODY, **shared, "classifier": classifier(c)}


def build(c: Config) -> Encoder:
    """Compose the bricks that an ALBERT config.json describes, without heads."""
    for key in ("inner_group_num", "down_scale_factor"):
        c.must(key, 1)
    for key in ("gap_size", "net_structure_type", "num_memory_blocks"):
        c.must(key, 0)
    c.text("hidden_act")  # where it is not there, it is another than BERT's
    width, narrow = c.count("hidden_size"), c.count("embedding_size", 128)
    positions = segmented(c, narrow)
    positions.norm = nn.Sequential(positions.norm, nn.Linear(narrow, width))
    embed = nn.Embedding(c.count("vocab_size"), narrow)
    return Encoder(embed, blocks(c, own=_groups(c)), positions=positions)


def _groups(c: Config) -> int:
    return c.count("num_hidden_groups", 1, most=c.count("num_hidden_layers", most=MOST_LAYERS))


HEADS = Heads(
    {
        "pooler": pooled(nn.Tanh),
        "predictions.dense": masked("hidden_act"),
        "sop_classifier.classifier": pairs,
        "classifier": classified,
        "qa_outputs": spans,
    },
    {
        "ForMaskedLM": ("predictions.dense",),
        "ForPreTraining": ("pooler", "predictions.dense", "sop_classifier.classifier"),
        "ForSequenceClassification": ("pooler", "classifier"),
        "ForMultipleChoice": ("pooler", "classifier"),
        "ForTokenClassification": ("classifier",),
        "ForQuestionAnswering": ("qa_outputs",),
    },
)
