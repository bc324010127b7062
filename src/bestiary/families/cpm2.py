"""CPM-2: a T5 with fused projections, dense or with a layer of experts in place of each feed-forward layer.

TsinghuaAI/CPM-2-Finetune, and CPM-2-Pretrain's branch moe; arXiv 2106.10715.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from ..bricks import GatedMLP, MoE, SoftPrompted, nearest
from ..config import ACTIVATIONS, MOST_LAYERS, Config
from ..models import EncoderDecoder
from ..tensors import Rules, Stacked
from .t5 import stacks

# What its config.json leaves to the tokenizer, to the machines it was trained on, and to a file beside it.
SIZES = {
    "vocab_size": "word_embeds.weight",
    "num_experts": "encoder.blocks.0.ff.expert_centroids",
    "prompt_length": "encoder.prompt_embeds.weight",
}

_CROSS, _FEED = "decoder.blocks.*.cross_attn", {"wi_0": "gate", "wi_1": "up", "wo": "down"}


def _names(stack: str) -> Rules:
    theirs, ours = f"{stack}.blocks.*", f"{stack}.layers.*"
    qkv = f"{ours}.attn.q", f"{ours}.attn.k", f"{ours}.attn.v"
    experts = f"{theirs}.ff.expert_network.*.dense_relu_dense"
    return {
        f"{stack}.blocks.0.self_attn.self_attn.relative_attention_bias": f"{stack}.bias.table",
        f"{theirs}.self_attn.self_attn.project": Stacked(qkv),
        f"{theirs}.self_attn.self_attn.dense": f"{ours}.attn.o",
        f"{theirs}.self_attn.layer_norm": f"{ours}.attn_norm",
        f"{theirs}.ff.[expert_network.]layer_norm": f"{ours}.mlp_norm",
        f"{theirs}.ff:expert_centroids": f"{ours}.mlp.route:weight",
        **{f"{theirs}.ff.dense_relu_dense.{t}": f"{ours}.mlp.{o}" for t, o in _FEED.items()},
        **{f"{experts}.{t}": f"{ours}.mlp.experts.*.{o}" for t, o in _FEED.items()},
        f"{stack}.final_layernorm": f"{stack}.norm",
    }


def TENSORS(c: Config) -> Rules:  # noqa: N802  # a table in most families
    """Name the tensors. Where there are prompts, what embeds words stands beside them."""
    return {
        "word_embeds": "encoder.embed.words" if "prompt_length" in c else "encoder.embed",
        "encoder.prompt_embeds": "encoder.embed.prompts",
        **_names("encoder"),
        **_names("decoder"),
        f"{_CROSS}.cross_attn.project_q": "decoder.layers.*.cross.q",
        f"{_CROSS}.cross_attn.project_kv": Stacked(("decoder.layers.*.cross.k", "decoder.layers.*.cross.v")),
        f"{_CROSS}.cross_attn.dense": "decoder.layers.*.cross.o",
        f"{_CROSS}.layer_norm": "decoder.layers.*.cross_norm",
        "lm_head": "decoder.head",
    }


def build(c: Config) -> EncoderDecoder:
    """Compose the bricks that a CPM-2 config.json describes.

    Its code has a gated layer whatever feed_forward_proj says, and as many blocks in the decoder as in the
    encoder whatever num_decoder_layers says.
    """
    for unheeded in ("feed_forward_proj", "num_decoder_layers"):
        c.get(unheeded, None)
    c.must("do_dim_trick", False)
    width = c.count("d_model")
    mlp: Callable[[], nn.Module] = partial(GatedMLP, width, c.count("d_ff"), ACTIVATIONS["gelu_new"])
    if experts := c.count("num_experts", 0, least=0):
        mlp = partial(_mixture, width, experts, mlp)
    count = c.count("num_layers", most=MOST_LAYERS)
    start = c.count("decoder_start_token_id", 1, least=0, most=c.count("vocab_size") - 1)
    model = stacks(c, mlp, depths=(count, count), start=start)
    if prompts := c.count("prompt_length", 0, least=0):
        model.encoder.embed = SoftPrompted(model.encoder.embed, prompts, width)
    return model


def _mixture(width: int, count: int, mlp: Callable[[], nn.Module]) -> MoE:
    return MoE(width, (mlp() for _ in range(count)), nearest)
