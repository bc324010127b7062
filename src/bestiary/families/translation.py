"""What the Transformer of 2017 and its relatives share: layers, and fairseq's names of tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from ..bricks import (
    MLP,
    Attention,
    CrossAttention,
    CrossPostNorm,
    CrossPreNorm,
    Heads,
    PostNorm,
    PreNorm,
    Scale,
)
from ..config import MOST_LAYERS, Activation, Config
from ..context import Score
from ..tensors import DROP, Drop, Layout, Rules, Stacked

_PROJECTIONS = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "out_proj": "o"}
# Ours: how a layer's norms are called, and by their numbers before 2018.
_NORMS = {
    "encoder": {"attn_norm": "self_attn_layer_norm", "mlp_norm": "final_layer_norm"},
    "decoder": {
        "attn_norm": "self_attn_layer_norm",
        "cross_norm": "encoder_attn_layer_norm",
        "mlp_norm": "final_layer_norm",
    },
}
_ATTENTIONS = {
    "encoder": {"attn": "self_attn"},
    "decoder": {"attn": "self_attn", "cross": "encoder_attn"},
}


def names(*, scaled: bool, learned: bool) -> Rules:
    """Return fairseq's names, which BART, Marian and their relatives in transformers kept.

    scaled: an embedding stands before a scale. learned: positions are tensors, not what files hold of a
    computed table.
    """
    rules: dict[str | tuple[str, ...], str | Layout | Drop] = {}
    for stack, attentions in _ATTENTIONS.items():
        theirs, layer = f"[model.]{stack}", f"[model.]{stack}.layers.*"
        for ours, attn in attentions.items():
            path = f"{stack}.layers.*.{ours}"
            rules |= {f"{layer}.{attn}.{proj}": f"{path}.{part}" for proj, part in _PROJECTIONS.items()}
            fused = f"{path}.q", f"{path}.k", f"{path}.v"
            for leaf in ("weight", "bias"):  # before 2019
                whole = Stacked(tuple(f"{part}:{leaf}" for part in fused))
                rules[f"{layer}.{attn}:in_proj_{leaf}"] = whole
        for number, (ours, norm) in enumerate(_NORMS[stack].items()):
            rules |= {
                f"{layer}.{name}": f"{stack}.layers.*.{ours}" for name in (norm, f"layer_norms.{number}")
            }
        rules |= {
            f"{layer}.fc1": f"{stack}.layers.*.mlp.up",
            f"{layer}.fc2": f"{stack}.layers.*.mlp.down",
            f"{theirs}.embed_tokens": f"{stack}.embed" + ".0" * scaled,
            f"{theirs}.embed_positions": f"{stack}.positions.table" if learned else DROP,
            f"{theirs}.layernorm_embedding": f"{stack}.positions.norm",
            f"{theirs}.layer_norm": f"{stack}.norm",
            f"{theirs}:version": DROP,
        }
    return rules


@dataclass(frozen=True)
class Layers:
    """How the layers of a stack are made.

    norm: what makes a norm of so many channels. before: norms stand before what they norm, and one more
    after the last layer. bias: of the projections of attention.
    """

    act: Activation
    norm: Callable[[int], nn.Module]
    before: bool
    bias: bool = True

    def encoder(self, width: int, hidden: int, heads: int, count: int) -> list[nn.Module]:
        """Return the layers of an encoder. heads: of each; count: of layers."""
        block, norm = PreNorm if self.before else PostNorm, partial(self.norm, width)
        attn = partial(Attention, width, Heads.of(width, heads), bias=self.bias, out_bias=self.bias)
        mlp = partial(MLP, width, hidden, self.act)
        both = Score(causal=False)
        return [block(norm(), attn(score=both), norm(), mlp()) for _ in range(count)]

    def decoder(self, width: int, hidden: int, heads: int, count: int, source: int) -> list[nn.Module]:
        """Return the layers of a decoder. source: channels of what the encoder makes."""
        block, norm = CrossPreNorm if self.before else CrossPostNorm, partial(self.norm, width)
        parts = Heads.of(width, heads)
        attn = partial(Attention, width, parts, bias=self.bias, out_bias=self.bias)
        cross = partial(CrossAttention, width, parts, source=source, bias=self.bias, out_bias=self.bias)
        mlp = partial(MLP, width, hidden, self.act)
        return [block(norm(), attn(), norm(), cross(), norm(), mlp()) for _ in range(count)]

    def last(self, width: int) -> nn.Module | None:
        """Return the norm after the last layer."""
        return self.norm(width) if self.before else None


def scaled(embed: nn.Embedding, scale: bool = True) -> nn.Module:
    """Return an embedding times the square root of its width, or as it is."""
    return nn.Sequential(embed, Scale(embed.embedding_dim**0.5)) if scale else embed


def sizes(c: Config, stack: str, hidden: str, width: int) -> tuple[int, int, int, int]:
    """Return a stack's width, hidden channels, heads and layers. hidden: how a config.json has the second."""
    return (
        width,
        c.count(f"{stack}_{hidden}"),
        c.count(f"{stack}_attention_heads", most=width),
        c.count(f"{stack}_layers", most=MOST_LAYERS),
    )
