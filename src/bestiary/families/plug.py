"""PLUG: StructBERT's encoder and PALM's decoder, over one embedding: alibaba/AliceMind, PLUG/model."""

from __future__ import annotations

from functools import partial

from torch import nn

from ..bricks import MLP, Attention, CrossAttention, CrossPreNorm, Heads, MaskedHead, PreNorm, Segmented
from ..config import MOST_LAYERS, Config
from ..context import Score
from ..models import Decoder, Encoder, EncoderDecoder
from ..tensors import Rules, Stacked

_READ, _WRITE = "bert.encoder.layer.*", "decoder.decoder.layer.*"
_ENCODER, _DECODER = "encoder.layers.*", "decoder.layers.*"

TENSORS: Rules = {
    "bert.embeddings.word_embeddings": "encoder.embed",
    "bert.embeddings.position_embeddings": "encoder.positions.table",
    "bert.embeddings.token_type_embeddings": "encoder.positions.segments",
    "bert.embeddings.LayerNorm": "encoder.positions.norm",
    f"{_READ}.attention.LayerNorm": f"{_ENCODER}.attn_norm",
    f"{_READ}.attention.self.query_key_value": Stacked(tuple(f"{_ENCODER}.attn.{x}" for x in "qkv")),
    f"{_READ}.attention.output.dense": f"{_ENCODER}.attn.o",
    f"{_READ}.LayerNorm": f"{_ENCODER}.mlp_norm",
    f"{_READ}.intermediate.dense": f"{_ENCODER}.mlp.up",
    f"{_READ}.output.dense": f"{_ENCODER}.mlp.down",
    "bert.encoder.LayerNorm": "encoder.norm.0",
    "bert.pooler.dense": "encoder.pooler.0",
    "cls.predictions.transform.dense": "encoder.head.dense",
    "cls.predictions.transform.LayerNorm": "encoder.head.norm",
    "cls.predictions:bias": "encoder.head.out:bias",
    "cls.seq_relationship": "encoder.judge",
    f"{_WRITE}.input_layernorm": f"{_DECODER}.attn_norm",
    f"{_WRITE}.attention.query_key_value": Stacked(tuple(f"{_DECODER}.attn.{x}" for x in "qkv")),
    f"{_WRITE}.attention.dense": f"{_DECODER}.attn.o",
    f"{_WRITE}.post_attention_layernorm": f"{_DECODER}.cross_norm",
    f"{_WRITE}.cross_attention.query": f"{_DECODER}.cross.q",
    f"{_WRITE}.cross_attention.key_value": Stacked((f"{_DECODER}.cross.k", f"{_DECODER}.cross.v")),
    f"{_WRITE}.cross_attention.dense": f"{_DECODER}.cross.o",
    f"{_WRITE}.post_cross_attention_layernorm": f"{_DECODER}.mlp_norm",
    f"{_WRITE}.intermediate": f"{_DECODER}.mlp.up",
    f"{_WRITE}.output": f"{_DECODER}.mlp.down",
    "decoder.decoder.final_layernorm": "decoder.norm",
}


def build(c: Config) -> EncoderDecoder:
    """Compose the bricks that a PLUG config.json describes. The padded rows of its vocabulary have logits."""
    c.must("pre_ln", True)
    c.must("attn_separate", False)
    width, vocabulary = c.count("hidden_size"), c.count("vocab_size")
    norm = partial(nn.LayerNorm, width, c.number(c.either("layernorm_epsilon", "layer_norm_eps"), 1e-12))
    act = c.activation("hidden_act", "gelu")
    heads = Heads.of(width, c.count("num_attention_heads", most=width))
    attn = partial(Attention, width, heads, bias=True, out_bias=True)
    cross = partial(CrossAttention, width, heads, bias=True, out_bias=True)
    mlp = partial(MLP, width, c.count("intermediate_size"), act)
    embed, head = nn.Embedding(vocabulary, width), nn.Linear(width, vocabulary, bias=False)
    rows, types = c.count("max_position_embeddings", 512), c.count("type_vocab_size", 2)
    positions, twice = Segmented(rows, width, types, norm=norm()), norm()
    reads = [
        PreNorm(norm(), attn(score=Score(causal=False)), norm(), mlp())
        for _ in range(c.count("num_hidden_layers", most=MOST_LAYERS))
    ]
    writes = [
        CrossPreNorm(norm(), attn(), norm(), cross(), norm(), mlp())
        for _ in range(c.count("dec_hidden_layers", 6, most=MOST_LAYERS))
    ]
    # BertEncoder.forward norms its last states, and again on its way out, unless it saves memory in training.
    encoder = Encoder(embed, reads, nn.Sequential(twice, twice), positions=positions)
    encoder.head = MaskedHead(width, vocabulary, act, norm())
    encoder.head.out.weight = head.weight = embed.weight
    encoder.pooler, encoder.judge = nn.Sequential(nn.Linear(width, width), nn.Tanh()), nn.Linear(width, 3)
    decoder = Decoder(embed, writes, norm(), head, positions=positions)
    start = c.count("decoder_start_token_id", 101, least=0, most=vocabulary - 1)  # [CLS]
    return EncoderDecoder(encoder, decoder, (start,))
