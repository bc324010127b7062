"""MetaLM: a causal decoder as the interface of a bidirectional encoder, built from its paper.

Hao et al., 2022, arXiv 2206.06336, which came without code or weights. Keys and tensors are those of its
authors' torchscale, for a section `encoder` and a section `decoder`.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from ..bricks import MLP, Attention, Buckets, DeepPostNorm, Heads, Learned, TimingSignal
from ..config import MOST_LAYERS, Config
from ..context import Score
from ..errors import ConfigError
from ..models import Encoder, SemiCausal
from ..tensors import Rules

_LAYER = {
    **{f"self_attn.{x}_proj": f"attn.{x}" for x in "qkv"},
    "self_attn.out_proj": "attn.o",
    "self_attn_layer_norm": "attn_norm",
    "ffn.fc1": "mlp.up",
    "ffn.fc2": "mlp.down",
    "final_layer_norm": "mlp_norm",
}
TENSORS: Rules = {
    "encoder.embed_tokens": "encoder.embed",
    "encoder.embed_positions": "encoder.positions.table",
    "encoder.relative_position.relative_attention_bias": "encoder.bias.table",
    **{f"encoder.layers.*.{theirs}": f"encoder.layers.*.{ours}" for theirs, ours in _LAYER.items()},
    "connector": "connector",
    "decoder.embed_tokens": "embed",
    **{f"decoder.layers.*.{theirs}": f"layers.*.{ours}" for theirs, ours in _LAYER.items()},
    "decoder.output_projection": "head",
}


def build(c: Config) -> SemiCausal:
    """Compose the bricks that a MetaLM config.json describes."""
    inner, outer = c.section("encoder"), c.section("decoder")
    if inner is None or outer is None:
        raise ConfigError(f"{c.where}: a MetaLM has a section 'encoder' and a section 'decoder'")
    vocabulary = c.count("vocab_size")
    width, source = outer.count("decoder_embed_dim"), inner.count("encoder_embed_dim")
    longest, heads = inner.count("max_source_positions", 512), inner.count("encoder_attention_heads")
    ranges = inner.count("rel_pos_buckets", 32, least=4)
    both = Buckets(heads, ranges=ranges, farthest=inner.count("max_rel_pos", 128, least=ranges // 4 + 1))
    encoder = Encoder(
        nn.Embedding(vocabulary, source),
        _layers(inner, "encoder", source, Score(causal=False, bias=both)),
        positions=Learned(longest, source, offset=2),  # torchscale leaves two rows free, as fairseq does
        bias=both,
    )
    outer.count("max_target_positions", 2048)  # sinusoids have no end
    head = nn.Linear(width, vocabulary, bias=False)
    embed = nn.Embedding(vocabulary, width)
    head.weight = embed.weight
    return SemiCausal(
        embed,
        _layers(outer, "decoder", width, Score()),
        None,
        head,
        encoder=encoder,
        connector=nn.Linear(source, width),
        longest=longest,
        positions=TimingSignal(offset=2),
    )


def _layers(c: Config, side: str, width: int, score: Score) -> list[DeepPostNorm]:
    count = c.count(f"{side}_layers", most=MOST_LAYERS)
    c.must("deepnorm", True)
    heads = Heads.of(width, c.count(f"{side}_attention_heads", most=width))
    norm = partial(nn.LayerNorm, width, c.number("layernorm_eps", 1e-5))
    attn = partial(Attention, width, heads, score=score, bias=True, out_bias=True)
    mlp = partial(MLP, width, c.count(f"{side}_ffn_embed_dim"), c.activation("activation_fn", "gelu"))
    return [DeepPostNorm(norm(), attn(), norm(), mlp(), (2 * count) ** 0.25) for _ in range(count)]
