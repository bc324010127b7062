"""tensor2tensor's Transformer, the authors' own, from its variables written to safetensors under their names.

Its checkpoints are TensorFlow's, which nothing here reads: another tool has to write each variable down.
config.json: `model_type` tensor2tensor, `vocab_size`, and of hparams.json what shapes the model.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from ..bricks import Aimed, Blanked, Scale, TimingSignal
from ..config import ACTIVATIONS, MOST_LAYERS, Config
from ..models import Decoder, Encoder, EncoderDecoder
from ..tensors import Drop, Layout, Rules, Turned
from .translation import Layers

_ATTENTION = {"q": "q", "k": "k", "v": "v", "output_transform": "o"}
_ENDS = {
    "shared": "encoder.embed.0.words",
    "input_emb": "encoder.embed.0.words",
    "target_emb": "decoder.embed.0.words",
    "softmax": "decoder.head",
}
_COMPUTED = {
    "norm_type": "layer", "pos": "timing", "multiply_embedding_mode": "sqrt_depth", "shared_embedding": False,
    "attention_key_channels": 0, "attention_value_channels": 0, "ffn_layer": "dense_relu_dense",
    "self_attention_type": "dot_product", "proximity_bias": False, "attention_variables_3d": False,
    "prepend_mode": "none", "causal_decoder_self_attention": True,
}  # fmt: skip


def TENSORS(c: Config) -> Rules:  # noqa: N802  # a table in most families
    """Name the variables. Matrices are turned, embeddings cut into shards."""
    body, shards = "transformer/body", range(_shards(c))
    rules: dict[str | tuple[str, ...], str | Layout | Drop] = {
        tuple(f"transformer/symbol_modality_*_*/{end}:weights_{i}" for i in shards): f"{ours}:weight"
        for end, ours in _ENDS.items()
    }
    rules[f"{body}/target_space_embedding:kernel"] = "encoder.embed.2.table:weight"
    for stack in ("encoder", "decoder"):
        norms = {f"{stack}/layer_prepostprocess": f"{stack}.norm"}
        for half, attn in {"self_attention": "attn", "encdec_attention": "cross", "ffn": "mlp"}.items():
            layer, ours = f"{stack}/layer_*/{half}", f"{stack}.layers.*.{attn}"
            norms[f"{layer}/{'layer_prepostprocess' if _before(c) else 'layer_postprocess'}"] = f"{ours}_norm"
            for name, part in _ATTENTION.items():
                rules[f"{body}/{layer}/multihead_attention/{name}:kernel"] = Turned(f"{ours}.{part}:weight")
            for name, part in {"conv1": "up", "conv2": "down"}.items():
                rules[f"{body}/{layer}/{name}:kernel"] = Turned(f"{ours}.{part}:weight")
                rules[f"{body}/{layer}/{name}:bias"] = f"{ours}.{part}:bias"
        for theirs, ours in norms.items():
            for name, leaf in (("scale", "weight"), ("bias", "bias")):
                rules[f"{body}/{theirs}/layer_norm:layer_norm_{name}"] = f"{ours}:{leaf}"
    return rules


def build(c: Config) -> EncoderDecoder:
    """Compose the bricks that hyperparameters describe."""
    width, vocabulary = c.count("hidden_size"), c.count("vocab_size")
    for key, computed in _COMPUTED.items():
        c.must(key, computed)
    _shards(c)
    norm = partial(nn.LayerNorm, eps=c.number("norm_epsilon", 1e-6))
    layers = Layers(ACTIVATIONS["relu"], norm, _before(c), bias=False)
    sizes = width, c.count("filter_size"), c.count("num_heads", most=width)
    count = c.count("num_hidden_layers", most=MOST_LAYERS)
    deep, far = (
        c.count(f"num_{s}_layers", 0, least=0, most=MOST_LAYERS) or count for s in ("encoder", "decoder")
    )
    words, target = Blanked(vocabulary, width), c.count("target_vocab_size", vocabulary)
    head, answers, scale = nn.Linear(width, target, bias=False), words, Scale(width**0.5)
    if c.flag("shared_embedding_and_softmax_weights", True):
        c.must("target_vocab_size", vocabulary)
        head.weight = words.words.weight
    else:
        answers = Blanked(target, width)
    embed = nn.Sequential(words, scale)
    if c.flag("use_target_space_embedding", True):
        embed.append(Aimed(32, width, row=c.count("target_space_id", least=0, most=31)))
    first, then = layers.encoder(*sizes, deep), layers.decoder(*sizes, far, width)
    encoder = Encoder(embed, first, layers.last(width), positions=TimingSignal())
    behind = nn.Sequential(answers, scale)
    decoder = Decoder(behind, then, layers.last(width), head, positions=TimingSignal())
    return EncoderDecoder(encoder, decoder, (0,))


def _shards(c: Config) -> int:
    return c.count("symbol_modality_num_shards", 16, most=1024)


def _before(c: Config) -> bool:
    """Tell whether norms stand before what they norm; the sequences say where dropout is, too."""
    before = c.text("layer_preprocess_sequence", "n") == "n"
    c.must("layer_preprocess_sequence", "n" if before else "none")
    c.must("layer_postprocess_sequence", *(("da", "a") if before else ("dan", "an")))
    return before
