"""fairseq's Transformer: the WMT models of Ott et al., 2018, and whatever else `--arch transformer` trained.

No config.json is published: the arguments lie in model.pt beside the weights, and are one.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ..bricks import Learned, TimingSignal
from ..config import Config
from ..models import Decoder, Encoder, EncoderDecoder
from ..tensors import Rules
from . import translation
from .translation import Layers, scaled, sizes

# How the arguments that shape a model begin, less those of training; all others are left in the file.
SHAPING = (
    "activation_fn", "adaptive_input", "adaptive_softmax_cutoff", "cross_self_", "decoder_", "encoder_",
    "layernorm_", "max_source_positions", "max_target_positions", "no_cross_", "no_decoder_final_norm",
    "no_scale_", "no_token_positional_", "share_",
)  # fmt: skip
TRAINING = ("embed_path", "layerdrop")


def TENSORS(c: Config) -> Rules:  # noqa: N802  # a table in most families
    """Name the tensors: both stacks have positions of one kind."""
    head: Rules = {"decoder.output_projection": "decoder.head", "decoder:embed_out": "decoder.head:weight"}
    return {**translation.names(scaled=_scaled(c), learned=c.flag("decoder_learned_pos", False)), **head}


def build(c: Config) -> EncoderDecoder:
    """Compose the bricks that the arguments of `--arch transformer` describe."""
    for key in (
        "adaptive_input",
        "no_cross_attention",
        "cross_self_attention",
        "no_token_positional_embeddings",
    ):
        c.must(key, False)
    c.must("adaptive_softmax_cutoff", None)
    c.must("encoder_learned_pos", c.flag("decoder_learned_pos", False))
    wide, width = c.count("encoder_embed_dim"), c.count("decoder_embed_dim")
    for key in ("decoder_input_dim", "decoder_output_dim"):
        c.must(key, width)
    whole = c.flag("share_all_embeddings", False)
    source, target = c.count("src_vocab_size"), c.count("tgt_vocab_size")
    if whole:
        c.must("src_vocab_size", target)
        c.must("encoder_embed_dim", width)
    words = nn.Embedding(source, wide)
    answer = words if whole else nn.Embedding(target, width)
    head = nn.Linear(width, target, bias=False)
    if c.flag("share_decoder_input_output_embed", False) or whole:
        head.weight = answer.weight
    first, then = (_layers(c, stack) for stack in ("encoder", "decoder"))
    last = None if c.flag("no_decoder_final_norm", False) else then.last(width)
    encoder = Encoder(
        scaled(words, _scaled(c)),
        first.encoder(*sizes(c, "encoder", "ffn_embed_dim", wide)),
        first.last(wide),
        positions=_positions(c, wide, "max_source_positions"),
    )
    layers = then.decoder(*sizes(c, "decoder", "ffn_embed_dim", width), wide)
    places = _positions(c, width, "max_target_positions")
    decoder = Decoder(scaled(answer, _scaled(c)), layers, last, head, positions=places)
    return EncoderDecoder(encoder, decoder, (c.count("eos", 2, least=0, most=target - 1),))


def _layers(c: Config, stack: str) -> Layers:
    return Layers(
        c.activation("activation_fn", "relu"), nn.LayerNorm, c.flag(f"{stack}_normalize_before", False)
    )


def _scaled(c: Config) -> bool:
    return not c.flag("no_scale_embedding", False)


def _positions(c: Config, width: int, rows: str) -> nn.Module:
    """Return positions, of which the first is the row after that of the padding."""
    first, most = c.count("pad", 1, least=0) + 1, c.count(rows, 1024)
    norm = nn.LayerNorm(width) if c.flag("layernorm_embedding", False) else None
    if c.flag("decoder_learned_pos", False):
        return Learned(most, width, offset=first, norm=norm)
    return TimingSignal(offset=first, norm=norm)


def published(
    beside: Mapping[str, object], shapes: Mapping[str, tuple[int, ...]]
) -> Mapping[str, object] | None:
    """Return the arguments in a model.pt, as a config.json; None where there are none.

    beside: what lies beside its tensors; shapes: of those, by name. Since 0.10 the arguments lie in `cfg`.
    """
    nested = beside.get("cfg")
    args = beside.get("args") or (nested.get("model") if isinstance(nested, dict) else None)
    if not isinstance(args, dict):
        return None
    shaping = [key for key in args if key.startswith(SHAPING) and not key.endswith(TRAINING)]
    ends = {"src": "encoder.embed_tokens.weight", "tgt": "decoder.embed_tokens.weight"}
    rows = {f"{side}_vocab_size": shapes[name][0] for side, name in ends.items() if shapes.get(name)}
    arch = str(args.get("arch") or args.get("_name"))
    pair = arch.startswith("transformer") and not arch.startswith("transformer_lm")
    return {
        "model_type": "transformer" if pair else arch,
        **{key: args[key] for key in shaping},
        **rows,
    }
