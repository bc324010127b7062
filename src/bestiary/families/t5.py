"""T5 and its relatives: relative positions in buckets, and scores without a scale.

The first release ties its head to the embedding and scales what it reads; T5 1.1, mT5, Flan-T5, T0, ChatYuan
and PromptCLUE have a head of their own and a gated feed-forward layer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from ..bricks import (
    MLP,
    Attention,
    Buckets,
    CrossAttention,
    CrossPreNorm,
    GatedMLP,
    Heads,
    PastBuckets,
    PreNorm,
    Scale,
)
from ..config import ACTIVATIONS, MOST_LAYERS, Activation, Config
from ..context import Score
from ..models import Decoder, Encoder, EncoderDecoder
from ..tensors import DROP, Drop, Layout, Rules
from .encoders import named
from .heads import Heads as Published

ENCODER: dict[str | tuple[str, ...], str | Layout | Drop] = {
    "encoder.embed_tokens": "encoder.embed",
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias": "encoder.bias.table",
    **{f"encoder.block.*.layer.0.SelfAttention.{x}": f"encoder.layers.*.attn.{x}" for x in "qkvo"},
    "encoder.block.*.layer.0.layer_norm": "encoder.layers.*.attn_norm",
    "encoder.block.*.layer.1.layer_norm": "encoder.layers.*.mlp_norm",
    "encoder.final_layer_norm": "encoder.norm",
}
DECODER: dict[str | tuple[str, ...], str | Layout | Drop] = {
    "decoder.embed_tokens": "decoder.embed",
    "decoder.block.0.layer.0.SelfAttention.relative_attention_bias": "decoder.bias.table",
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias": DROP,  # of old files, never used
    **{f"decoder.block.*.layer.0.SelfAttention.{x}": f"decoder.layers.*.attn.{x}" for x in "qkvo"},
    **{f"decoder.block.*.layer.1.EncDecAttention.{x}": f"decoder.layers.*.cross.{x}" for x in "qkvo"},
    "decoder.block.*.layer.0.layer_norm": "decoder.layers.*.attn_norm",
    "decoder.block.*.layer.1.layer_norm": "decoder.layers.*.cross_norm",
    "decoder.block.*.layer.2.layer_norm": "decoder.layers.*.mlp_norm",
    "decoder.final_layer_norm": "decoder.norm",
}
FEED = {"wi": "up", "wi_0": "gate", "wi_1": "up", "wo": "down"}


def TENSORS(c: Config) -> Rules:  # noqa: N802  # a table in most families
    """Name the tensors. The first release's head stands behind a scale."""
    feed: Rules = {
        f"{stack}.block.*.layer.{place}.DenseReluDense.{theirs}": f"{stack}.layers.*.mlp.{ours}"
        for stack, place in (("encoder", 1), ("decoder", 2))
        for theirs, ours in FEED.items()
    }
    each: Rules = {
        f"{stack}.block.*.layer.0.SelfAttention.relative_attention_bias": f"{stack}.bias.*.table"
        for stack in ("encoder", "decoder")
    }
    head = "decoder.head.1" if _scaled(c) else "decoder.head"
    both: Rules = {"shared": "encoder.embed", **(each if _apart(c) else {}), **ENCODER, **feed}
    if not named(c, "EncoderModel"):
        return {**both, **DECODER, "lm_head": head}
    return {path: ours.removeprefix("encoder.") for path, ours in both.items() if isinstance(ours, str)}


def build(c: Config) -> EncoderDecoder | Encoder:
    """Compose the bricks that a T5 config.json describes: of a T5EncoderModel, the encoder alone."""
    count = c.count("num_layers", most=MOST_LAYERS)
    depths = count, c.count("num_decoder_layers", count, most=MOST_LAYERS)
    start = c.count("decoder_start_token_id", 0, least=0, most=c.count("vocab_size") - 1)
    c.must("is_decoder", False)
    c.must("scalable_attention", True)  # of umT5's files; no code reads it
    model = stacks(c, _feed(c, c.count("d_model")), depths=depths, start=start, apart=_apart(c))
    if c.flag("tie_word_embeddings", c.text("model_type") == "t5"):
        model.decoder.head.weight = model.encoder.embed.weight
    if _scaled(c):
        model.decoder.head = nn.Sequential(Scale(c.count("d_model") ** -0.5), model.decoder.head)
    return model.encoder if named(c, "EncoderModel") else model


def stacks(
    c: Config, mlp: Callable[[], nn.Module], *, depths: tuple[int, int], start: int, apart: bool = False
) -> EncoderDecoder:
    """Compose a T5's two stacks, of so many blocks each. mlp: makes what stands after the attention.

    apart: whether each block has a table of distances of its own, in place of one for all of its stack.
    """
    width, vocabulary = c.count("d_model"), c.count("vocab_size")
    queries = c.count("num_heads", most=width)
    heads = Heads(queries, queries, c.count("d_kv"))
    ranges = c.count("relative_attention_num_buckets", 32, least=4, most=1024)
    farthest = c.count("relative_attention_max_distance", 128, least=ranges // 2 + 1)
    norm = partial(nn.RMSNorm, width, c.number("layer_norm_epsilon", 1e-6))
    embed, head = nn.Embedding(vocabulary, width), nn.Linear(width, vocabulary, bias=False)
    both, past = (
        [kind(queries, ranges=ranges, farthest=farthest) for _ in range(depth if apart else 1)]
        for kind, depth in zip((Buckets, PastBuckets), depths, strict=True)
    )
    attn = partial(Attention, width, heads)
    cross = partial(CrossAttention, width, heads, score=Score(1.0, causal=False))
    scores = [Score(1.0, causal=False, bias=both[i % len(both)]) for i in range(depths[0])]
    masked = [Score(1.0, bias=past[i % len(past)]) for i in range(depths[1])]
    encoder = [PreNorm(norm(), attn(score=score), norm(), mlp()) for score in scores]
    decoder = [CrossPreNorm(norm(), attn(score=score), norm(), cross(), norm(), mlp()) for score in masked]
    tables = [nn.ModuleList(each) if apart else each[0] for each in (both, past)]
    return EncoderDecoder(
        Encoder(embed, encoder, norm(), bias=tables[0]),
        Decoder(embed, decoder, norm(), head, bias=tables[1]),
        (start,),
    )


def _apart(c: Config) -> bool:
    return c.text("model_type") == "umt5"


def _scaled(c: Config) -> bool:
    """Tell whether the head reads states times d_model ** -0.5: it does where it was published as tied."""
    first = c.text("model_type") == "t5" and c.flag("tie_word_embeddings", True)
    return c.flag("scale_decoder_outputs", first)


def _feed(c: Config, width: int) -> Callable[[], nn.Module]:
    """Return what makes a feed-forward layer. "gated-gelu" has always meant the tanh form."""
    said, hidden = c.text("feed_forward_proj", "relu"), c.count("d_ff")
    gate, _, name = said.rpartition("-")
    names: dict[str, Activation] = {**ACTIVATIONS, **({"gelu": ACTIVATIONS["gelu_new"]} if gate else {})}
    if gate not in ("", "gated") or name not in names:
        c.must("feed_forward_proj", "relu", "gated-gelu", "gated-silu")
    c.must("is_gated_act", bool(gate))
    c.must("dense_act_fn", "gelu_new" if said == "gated-gelu" else name)
    return partial(GatedMLP if gate else MLP, width, hidden, names[name], bias=False)


def _own_head(c: Config, model: Any, bias: bool) -> None:
    """Put a head of its own where the file has one: transformers 5 calls it tied, whatever it holds."""
    if not _scaled(c):
        model.decoder.head = nn.Linear(c.count("d_model"), c.count("vocab_size"), bias)


HEADS = Published({"lm_head": _own_head}, {})
