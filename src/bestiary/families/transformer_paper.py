"""The Transformer as its paper has it: norms after, no biases in attention, one matrix at all three ends.

Nothing was published in this form; the names are fairseq's.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from ..bricks import Sinusoids, TimingSignal
from ..config import ACTIVATIONS, MOST_LAYERS, Config
from ..models import Decoder, Encoder, EncoderDecoder
from ..tensors import Rules
from .translation import Layers, names, scaled

TENSORS: Rules = names(scaled=True, learned=False)


def build(c: Config) -> EncoderDecoder:
    """Compose the bricks of Vaswani et al., 2017, arXiv 1706.03762, in the sizes that a config.json gives."""
    width, vocabulary = c.count("embed_dim"), c.count("vocab_size")
    c.must("layout", "paper")
    c.must("share_all_embeddings", True)
    c.must("sinusoid", "interleaved", "tensor2tensor")
    positions = Sinusoids if c.text("sinusoid", "interleaved") == "interleaved" else TimingSignal
    norm = partial(nn.LayerNorm, eps=c.number("layer_norm_eps", 1e-6))
    before, bias = c.flag("normalize_before", False), c.flag("attention_bias", False)
    layers = Layers(ACTIVATIONS["relu"], norm, before, bias)
    hidden, heads = c.count("ffn_embed_dim"), c.count("attention_heads", most=width)
    count = c.count("layers", most=MOST_LAYERS)
    deep = c.count("decoder_layers", count, most=MOST_LAYERS)
    words, head = nn.Embedding(vocabulary, width), nn.Linear(width, vocabulary, bias=False)
    head.weight = words.weight
    embed, last = scaled(words), layers.last
    encoder = Encoder(embed, layers.encoder(width, hidden, heads, count), last(width), positions=positions())
    decoder = Decoder(
        embed, layers.decoder(width, hidden, heads, deep, width), last(width), head, positions=positions()
    )
    return EncoderDecoder(encoder, decoder, (c.count("eos", 2, least=0, most=vocabulary - 1),))
