"""OPT, OPT-IML, Galactica: positions from row 2. OPT-350M alone norms last and has narrower tokens."""

from __future__ import annotations

from functools import partial

from torch import nn

from ..bricks import MLP, Attention, Heads, Learned, PostNorm, PreNorm
from ..config import MOST_LAYERS, Config
from ..models import Decoder
from ..tensors import Rules
from .ends import ends

_LAYER = "[model.]decoder.layers.*"


def tensors(c: Config) -> Rules:
    """Return the names, of which the ends depend on whether tokens are narrower than the stream."""
    inner = ".0" if _narrow(c) else ""
    return {
        "[model.]decoder.embed_tokens": f"embed{inner}",
        "[model.]decoder.project_in": "embed.1",
        "[model.]decoder.embed_positions": "positions.table",
        f"{_LAYER}.self_attn_layer_norm": "layers.*.attn_norm",
        f"{_LAYER}.self_attn.q_proj": "layers.*.attn.q",
        f"{_LAYER}.self_attn.k_proj": "layers.*.attn.k",
        f"{_LAYER}.self_attn.v_proj": "layers.*.attn.v",
        f"{_LAYER}.self_attn.out_proj": "layers.*.attn.o",
        f"{_LAYER}.final_layer_norm": "layers.*.mlp_norm",
        f"{_LAYER}.fc1": "layers.*.mlp.up",
        f"{_LAYER}.fc2": "layers.*.mlp.down",
        "[model.]decoder.final_layer_norm": f"norm{inner}",
        "[model.]decoder.project_out": "norm.1",
        "lm_head": "head",
    }


TENSORS = tensors


def build(c: Config) -> Decoder:
    """Compose the bricks that an OPT config.json describes."""
    width, narrow, bias = c.count("hidden_size"), _narrow(c), c.flag(c.either("enable_bias", "bias"), True)
    act, before = c.activation("activation_function", "relu"), c.flag("do_layer_norm_before", True)
    c.must("scale_embeddings", False)
    c.must("learned_embeddings", True)
    norm = partial(nn.LayerNorm, width, elementwise_affine=c.flag("layer_norm_elementwise_affine", True))
    heads = Heads.of(width, c.count("num_attention_heads", most=width))
    attn = partial(Attention, width, heads, bias=bias, out_bias=bias)
    mlp = partial(MLP, width, c.count("ffn_dim"), act, bias=bias)
    block, count = PreNorm if before else PostNorm, c.count("num_hidden_layers", most=MOST_LAYERS)
    layers = [block(norm(), attn(), norm(), mlp()) for _ in range(count)]
    last: nn.Module = norm() if before and not c.flag("_remove_final_layer_norm", False) else nn.Identity()
    positions = Learned(c.count("max_position_embeddings", 2048), width, offset=2)
    if not narrow:
        embed, head = ends(c, width, tied=True)
        return Decoder(embed, layers, last, head, positions=positions)
    embed, head = ends(c, narrow, tied=True)
    inward, outward = nn.Linear(narrow, width, bias=False), nn.Linear(width, narrow, bias=False)
    return Decoder(
        nn.Sequential(embed, inward), layers, nn.Sequential(last, outward), head, positions=positions
    )


def _narrow(c: Config) -> int | None:
    """Return the channels of a token's embedding, where they are not the stream's."""
    width = c.count("hidden_size")
    own = c.count("word_embed_proj_dim", width)
    return None if own == width else own
