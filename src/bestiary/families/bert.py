"""BERT, and what is a BERT by another name: MiniLM, Contriever, RoBERTa and their relatives."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from ..bricks import MLP, Attention, MaskedHead, PostNorm, Segmented
from ..bricks import Heads as Division
from ..config import MOST_LAYERS, Config
from ..context import Score
from ..models import Encoder
from ..tensors import Rules
from .heads import Heads, labels

_NORMS = {
    "embeddings.LayerNorm": "positions.norm",
    "encoder.layer.*.attention.output.LayerNorm": "layers.*.attn_norm",
    "encoder.layer.*.output.LayerNorm": "layers.*.mlp_norm",
}
_BODY = {
    "embeddings.word_embeddings": "embed",
    "embeddings.position_embeddings": "positions.table",
    "embeddings.token_type_embeddings": "positions.segments",
    "encoder.layer.*.attention.self.query": "layers.*.attn.q",
    "encoder.layer.*.attention.self.key": "layers.*.attn.k",
    "encoder.layer.*.attention.self.value": "layers.*.attn.v",
    "encoder.layer.*.attention.output.dense": "layers.*.attn.o",
    "encoder.layer.*.intermediate.dense": "layers.*.mlp.up",
    "encoder.layer.*.output.dense": "layers.*.mlp.down",
    "pooler.dense": "pooler.0",
}
# The first release called what scales and shifts a norm gamma and beta, and bert-base-uncased still does.
_OLD = {"gamma": "weight", "beta": "bias"}


def body(prefix: str) -> Rules:
    """Return the names of all but the heads. prefix: what some files put before each."""
    norms: dict[str, str] = {**_NORMS, "cls.predictions.transform.LayerNorm": "head.norm"}
    old: Rules = {
        f"[{prefix}]{path}:{o}": f"{ours}:{n}" for path, ours in norms.items() for o, n in _OLD.items()
    }
    names: Rules = {f"[{prefix}]{path}": ours for path, ours in {**_BODY, **_NORMS}.items()}
    return {**old, **names}


def TENSORS(c: Config) -> Rules:  # noqa: N802  # a table in most families
    """Name the tensors. What `classifier` judges, tokens or texts, the architecture says."""
    return {
        **body("bert."),
        "cls.predictions.transform.dense": "head.dense",
        "cls.predictions.transform.LayerNorm": "head.norm",
        "cls.predictions.decoder": "head.out",
        "cls.predictions:bias": "head.out:bias",
        "cls.seq_relationship": "judge",
        "classifier": "head" if of_tokens(c) else "judge",
        "qa_outputs": "head",
    }


def build(c: Config) -> Encoder:
    """Compose the bricks that a BERT config.json describes, without heads."""
    return encoder(c, offset=0)


def encoder(c: Config, *, offset: int) -> Encoder:
    """Compose the bricks. offset: the row of the position table that a text begins with."""
    width = c.count("hidden_size")
    c.must("position_embedding_type", "absolute")
    c.must("is_decoder", False)
    c.must("add_cross_attention", False)
    norm = partial(nn.LayerNorm, width, c.number("layer_norm_eps", 1e-12))
    heads = Division.of(width, c.count("num_attention_heads", most=width))
    attn = partial(Attention, width, heads, score=Score(causal=False), bias=True, out_bias=True)
    mlp = partial(MLP, width, c.count("intermediate_size"), c.activation("hidden_act", "gelu"))
    count = c.count("num_hidden_layers", most=MOST_LAYERS)
    rows = c.count("max_position_embeddings", 512, least=offset + 1)
    positions = Segmented(rows - offset, width, c.count("type_vocab_size", 2), offset=offset, norm=norm())
    layers = [PostNorm(norm(), attn(), norm(), mlp()) for _ in range(count)]
    return Encoder(nn.Embedding(c.count("vocab_size"), width), layers, positions=positions)


def of_tokens(c: Config) -> bool:
    """Tell whether a classifier judges each token rather than the whole text."""
    said = c.get("architectures", None)
    return isinstance(said, list) and any(str(name).endswith("ForTokenClassification") for name in said)


def pooled(c: Config, model: Any, bias: bool) -> None:
    """Summarise a text by its first token."""
    width = model.embed.embedding_dim
    model.pooler = nn.Sequential(nn.Linear(width, width), nn.Tanh())


def masked(c: Config, model: Any, bias: bool) -> None:
    """Fill masks, by words that are tied to the embedding."""
    width, vocabulary = model.embed.embedding_dim, model.embed.num_embeddings
    norm = nn.LayerNorm(width, c.number("layer_norm_eps", 1e-12))
    model.head = MaskedHead(width, vocabulary, c.activation("hidden_act", "gelu"), norm)
    if c.flag("tie_word_embeddings", True):
        model.head.out.weight = model.embed.weight


def classified(c: Config, model: Any, bias: bool) -> None:
    """Judge each token, or the text."""
    made = nn.Linear(model.embed.embedding_dim, labels(c), bias)
    if of_tokens(c):
        model.head = made
    else:
        model.judge = made


def _pairs(c: Config, model: Any, bias: bool) -> None:
    """Judge whether the second segment follows the first: class 0 says that it does."""
    model.judge = nn.Linear(model.embed.embedding_dim, 2, bias)


def spans(c: Config, model: Any, bias: bool) -> None:
    """Say of each token whether an answer begins there, and whether it ends there."""
    model.head = nn.Linear(model.embed.embedding_dim, 2, bias)


HEADS = Heads(
    {
        "pooler.dense": pooled,
        "cls.predictions.transform.dense": masked,
        "cls.seq_relationship": _pairs,
        "classifier": classified,
        "qa_outputs": spans,
    },
    {
        "ForMaskedLM": ("cls.predictions.transform.dense",),
        "ForPreTraining": ("pooler.dense", "cls.predictions.transform.dense", "cls.seq_relationship"),
        "ForNextSentencePrediction": ("pooler.dense", "cls.seq_relationship"),
        "ForSequenceClassification": ("pooler.dense", "classifier"),
        "ForTokenClassification": ("classifier",),
        "ForQuestionAnswering": ("qa_outputs",),
    },
)
