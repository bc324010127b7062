"""SmolLM3: Llama with layers that have no positions."""

from __future__ import annotations

from torch import nn

from ..bricks import unmoved
from ..config import MOST_LAYERS, Config
from ..errors import ConfigError
from ..models import Decoder
from . import llama

TENSORS = llama.TENSORS


def build(c: Config) -> Decoder:
    """Compose the bricks that a SmolLM3 config.json describes."""
    layers = c.count("num_hidden_layers", most=MOST_LAYERS)
    period = c.count("no_rope_layer_interval", 4)
    # Named for what it is not: 1 is a layer with rotary positions.
    turned = c.values("no_rope_layers", int) or [int((index + 1) % period > 0) for index in range(layers)]
    if len(turned) != layers or not set(turned) <= {0, 1}:
        raise ConfigError(f"{c.where}: no_rope_layers should be 0 or 1 for each of the {layers} layers")

    def attention(make: llama.Make, index: int) -> nn.Module:
        return make() if turned[index] else make(position=unmoved)

    return llama.build(c, attention=attention, tied=True)
