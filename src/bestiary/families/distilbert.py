"""DistilBERT: half of BERT's layers, no segments, and other names, arXiv 1910.01108."""

from __future__ import annotations

from functools import partial

from torch import nn

from ..bricks import MLP, Attention, Learned, PostNorm
from ..bricks import Heads as Division
from ..config import MOST_LAYERS, Config
from ..context import Score
from ..models import Encoder
from ..tensors import Rules
from .encoders import classified, classifier, masked, pooled, spans
from .heads import Heads

BODY: Rules = {
    "[distilbert.]embeddings.word_embeddings": "embed",
    "[distilbert.]embeddings.position_embeddings": "positions.table",
    "[distilbert.]embeddings.LayerNorm": "positions.norm",
    **{f"[distilbert.]transformer.layer.*.attention.{x}_lin": f"layers.*.attn.{x}" for x in "qkv"},
    "[distilbert.]transformer.layer.*.attention.out_lin": "layers.*.attn.o",
    "[distilbert.]transformer.layer.*.sa_layer_norm": "layers.*.attn_norm",
    "[distilbert.]transformer.layer.*.ffn.lin1": "layers.*.mlp.up",
    "[distilbert.]transformer.layer.*.ffn.lin2": "layers.*.mlp.down",
    "[distilbert.]transformer.layer.*.output_layer_norm": "layers.*.mlp_norm",
    "vocab_transform": "head.dense",
    "vocab_layer_norm": "head.norm",
    "vocab_projector": "head.out",
    "pre_classifier": "pooler.0",
    "qa_outputs": "head",
}


def TENSORS(c: Config) -> Rules:  # noqa: N802  # a table in most families
    """Name the tensors. What `classifier` judges, tokens or texts, the architecture says."""
    return {**BODY, "classifier": classifier(c)}


def build(c: Config) -> Encoder:
    """Compose the bricks that a DistilBERT config.json describes, without heads."""
    c.must("sinusoidal_pos_embds", False, True)  # what the table held when training began
    c.must("tie_weights_", True)
    c.flag("tie_word_embeddings", True)
    width = c.count("dim")
    norm = partial(nn.LayerNorm, width, 1e-12)
    heads = Division.of(width, c.count("n_heads", most=width))
    attn = partial(Attention, width, heads, score=Score(causal=False), bias=True, out_bias=True)
    mlp = partial(MLP, width, c.count("hidden_dim"), c.activation("activation", "gelu"))
    count = c.count("n_layers", most=MOST_LAYERS)
    layers = [PostNorm(norm(), attn(), norm(), mlp()) for _ in range(count)]
    positions = Learned(c.count("max_position_embeddings", 512), width, norm=norm())
    return Encoder(nn.Embedding(c.count("vocab_size"), width), layers, positions=positions)


HEADS = Heads(
    {
        "vocab_transform": masked("activation"),
        "pre_classifier": pooled(nn.ReLU),
        "classifier": classified,
        "qa_outputs": spans,
    },
    {
        "ForMaskedLM": ("vocab_transform",),
        "ForSequenceClassification": ("pre_classifier", "classifier"),
        "ForMultipleChoice": ("pre_classifier", "classifier"),
        "ForTokenClassification": ("classifier",),
        "ForQuestionAnswering": ("qa_outputs",),
    },
)
