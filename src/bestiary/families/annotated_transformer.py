"""The Annotated Transformer of Harvard NLP: norms of its own, before each half, and three separate ends.

harvardnlp/annotated-transformer, the_annotated_transformer.py. Nothing was published but the code:
config.json holds the arguments of make_model.
"""

from __future__ import annotations

from torch import nn

from ..bricks import SampleNorm, Sinusoids
from ..config import ACTIVATIONS, MOST_LAYERS, Config
from ..models import Decoder, Encoder, EncoderDecoder
from ..tensors import DROP, Drop, Layout, Rules
from .translation import Layers, scaled

_HALVES = {
    "encoder": {"attn": "self_attn", "mlp": "feed_forward"},
    "decoder": {"attn": "self_attn", "cross": "src_attn", "mlp": "feed_forward"},
}


def _names() -> Rules:
    rules: dict[str | tuple[str, ...], str | Layout | Drop] = {
        "src_embed.0.lut": "encoder.embed.0",
        "tgt_embed.0.lut": "decoder.embed.0",
        "src_embed.1": DROP,  # sines and cosines, which are computed
        "tgt_embed.1": DROP,
        "generator.proj": "decoder.head",
    }
    for stack, halves in _HALVES.items():
        norms = {f"{stack}.norm": f"{stack}.norm"}
        for number, (ours, theirs) in enumerate(halves.items()):
            layer = f"{stack}.layers.*"
            norms[f"{layer}.sublayer.{number}.norm"] = f"{layer}.{ours}_norm"
            parts = (
                {"w_1": "up", "w_2": "down"} if ours == "mlp" else dict(zip(_LINEARS, "qkvo", strict=True))
            )
            rules |= {f"{layer}.{theirs}.{name}": f"{layer}.{ours}.{part}" for name, part in parts.items()}
        for path, norm in norms.items():
            rules |= {f"{path}:a_2": f"{norm}:weight", f"{path}:b_2": f"{norm}:bias"}
    return rules


_LINEARS = tuple(f"linears.{i}" for i in range(4))
TENSORS: Rules = _names()


def build(c: Config) -> EncoderDecoder:
    """Compose the bricks that make_model makes of its arguments."""
    width, layers = c.count("d_model", 512), Layers(ACTIVATIONS["relu"], SampleNorm, before=True)
    count = c.count("N", 6, most=MOST_LAYERS)
    sizes = width, c.count("d_ff", 2048), c.count("h", 8, most=width), count
    source, target = c.count("src_vocab"), c.count("tgt_vocab")
    encoder = Encoder(
        scaled(nn.Embedding(source, width)), layers.encoder(*sizes), layers.last(width), positions=Sinusoids()
    )
    decoder = Decoder(
        scaled(nn.Embedding(target, width)),
        layers.decoder(*sizes, width),
        layers.last(width),
        nn.Linear(width, target),
        positions=Sinusoids(),
    )
    return EncoderDecoder(encoder, decoder, (0,))
