"""Falcon 7B (one key head, one norm), 40B and 180B (key heads for groups, two norms), and RW (ALiBi)."""

from __future__ import annotations

from functools import partial

from torch import nn

from ..bricks import (
    MLP,
    Attention,
    Heads,
    Parallel,
    Position,
    PreNorm,
    RoundedALiBi,
    SharedParallel,
    slopes,
    unmoved,
)
from ..config import MOST_LAYERS, Config
from ..context import Score
from ..models import Decoder
from ..tensors import DROP, ByHead, Rules
from .ends import ends
from .rotary import rotary

_NAMES: Rules = {
    "transformer.word_embeddings": "embed",
    "transformer.h.*.input_layernorm": "layers.*.attn_norm",
    # One key head is one group: Falcon 7B's layout is a case of Falcon 40B's, and RW's heads are its groups.
    "transformer.h.*.self_attention.query_key_value": ByHead("layers.*.attn"),
    "transformer.h.*.self_attention.rotary_emb": DROP,
    "transformer.h.*.self_attention.dense": "layers.*.attn.o",
    "transformer.h.*.post_attention_layernorm": "layers.*.mlp_norm",
    "transformer.h.*.mlp.dense_h_to_4h": "layers.*.mlp.up",
    "transformer.h.*.mlp.dense_4h_to_h": "layers.*.mlp.down",
    "transformer.ln_f": "norm",
    "lm_head": "head",
}
_TWO: Rules = {"transformer.h.*.ln_attn": "layers.*.attn_norm", "transformer.h.*.ln_mlp": "layers.*.mlp_norm"}


def TENSORS(c: Config) -> Rules:  # noqa: N802  # a table in most families
    """Return the names: where key heads have groups, the two norms have names of their own."""
    return {**_TWO, **_NAMES} if _grouped(c) else _NAMES


def _grouped(c: Config) -> bool:
    return c.flag("new_decoder_architecture", c.text("model_type") == "RefinedWeb")


def build(c: Config) -> Decoder:
    """Compose the bricks that a Falcon config.json describes, in today's spelling or RefinedWeb's."""
    width, bias = c.count("hidden_size"), c.flag("bias", False)
    grouped = _grouped(c)
    queries = c.count(c.either("num_attention_heads", "n_head"), most=width)
    kv = c.count(c.either("num_kv_heads", "n_head_kv"), queries)
    shared = c.flag("multi_query", True)
    heads = Heads.of(width, queries, kv if grouped else 1 if shared else queries)
    c.must("apply_residual_connection_post_layernorm", False)
    score = Score()
    position: Position = rotary(c, heads.dim)
    if c.flag("alibi", False):
        score, position = Score(bias=RoundedALiBi(slopes(queries), heads.dim**-0.5)), unmoved
    norm = partial(nn.LayerNorm, width, c.number("layer_norm_epsilon", 1e-5))
    attn = partial(Attention, width, heads, score=score, position=position, bias=bias, out_bias=bias)
    act = c.activation("activation", "gelu")
    mlp = partial(MLP, width, c.count("ffn_hidden_size", 4 * width), act, bias=bias)
    parallel = c.flag("parallel_attn", True)

    def block() -> nn.Module:
        if grouped and c.count("num_ln_in_parallel_attn", 2) == 2:
            return Parallel(norm(), attn(), norm(), mlp())
        if parallel:
            return SharedParallel(norm(), attn(), mlp())
        return PreNorm(norm(), attn(), norm(), mlp())

    layers = [block() for _ in range(c.count(c.either("num_hidden_layers", "n_layer"), most=MOST_LAYERS))]
    embed, head = ends(c, width, tied=True)
    return Decoder(embed, layers, norm(), head)
