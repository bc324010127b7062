"""What BERT and its relatives share: the keys of their blocks, their tensors' names, and their heads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import nn

from ..bricks import MLP, Attention, Heads, MaskedHead, PostNorm, Segmented
from ..config import MOST_LAYERS, Config
from ..context import Score
from ..tensors import Rules
from .heads import Attach, labels

NORMS = {
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


def body(prefix: str) -> Rules:
    """Return the names of all but the heads. prefix: what files with a head put before each."""
    return {f"[{prefix}.]{path}": ours for path, ours in {**_BODY, **NORMS}.items()}


def blocks(c: Config, score: Score | None = None, *, own: int | None = None) -> list[nn.Module]:
    """Return the blocks that a config.json describes. own: how many have weights of their own; all, if None.

    The others have those of the one before.
    """
    for key in ("is_decoder", "add_cross_attention"):
        c.must(key, False)
    c.must("position_embedding_type", "absolute")
    c.flag("tie_word_embeddings", True)  # read again with the head that it is about, if there is one
    width = c.count("hidden_size")
    heads = Heads.of(width, c.count("num_attention_heads", most=width))
    score = score or Score(causal=False)
    attn = partial(Attention, width, heads, score=score, bias=True, out_bias=True)
    mlp = partial(MLP, width, c.count("intermediate_size"), c.activation("hidden_act", "gelu"))
    count = c.count("num_hidden_layers", most=MOST_LAYERS)
    made = [PostNorm(norm(c, width), attn(), norm(c, width), mlp()) for _ in range(own or count)]
    return [made[i * len(made) // count] for i in range(count)]


def norm(c: Config, width: int) -> nn.LayerNorm:
    """Return one of the norms, which are all alike."""
    return nn.LayerNorm(width, c.number("layer_norm_eps", 1e-12))


def segmented(c: Config, width: int, *, offset: int = 0) -> Segmented:
    """Return what adds positions and segments. offset: the row of the table that a text begins with."""
    rows = c.count("max_position_embeddings", 512, least=offset + 1) - offset
    return Segmented(rows, width, c.count("type_vocab_size", 2), offset=offset, norm=norm(c, width))


def pooled(act: Callable[[], nn.Module]) -> Attach:
    """Summarise a text by its first token: act(dense x)."""

    def attach(c: Config, model: Any, bias: bool) -> None:
        model.pooler = nn.Sequential(nn.Linear(_width(model), _width(model)), act())

    return attach


def masked(key: str | None = None) -> Attach:
    """Fill masks, by words that are tied to the embedding. key: of the activation; None: the exact GELU."""

    def attach(c: Config, model: Any, bias: bool) -> None:
        words, inner = model.embed.num_embeddings, model.embed.embedding_dim
        act = F.gelu if key is None else c.activation(key, "gelu")
        model.head = MaskedHead(_width(model), words, act, norm(c, inner), inner=inner)
        if c.flag("tie_word_embeddings", True):
            model.head.out.weight = model.embed.weight

    return attach


def classified(c: Config, model: Any, bias: bool) -> None:
    """Judge each token, or the text: what the architecture says. A choice is one number for each text."""
    made = nn.Linear(_width(model), 1 if named(c, "ForMultipleChoice") else labels(c))
    if classifier(c) == "head":
        model.head = made
    else:
        model.judge = made


def classifier(c: Config) -> str:
    """Return which of ours the tensors of `classifier` are."""
    return "head" if named(c, "ForTokenClassification") else "judge"


def pairs(c: Config, model: Any, bias: bool) -> None:
    """Judge whether the second segment follows the first: class 0 says that it does."""
    model.judge = nn.Linear(_width(model), 2)


def spans(c: Config, model: Any, bias: bool) -> None:
    """Say of each token whether an answer begins there, and whether it ends there."""
    model.head = nn.Linear(_width(model), 2)


def named(c: Config, end: str) -> bool:
    """Tell whether the name of a model's architecture ends so."""
    said = c.get("architectures", None)
    return isinstance(said, list) and any(str(name).endswith(end) for name in said[:1])


def _width(model: Any) -> int:
    width: int = model.layers[0].attn.o.out_features
    return width
