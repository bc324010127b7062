"""How programs that train over several ranks cut a model: a table each, of names and what makes one tensor.

A rank holds its share of what was cut under the names that the whole would have. What a program fused before
it cut, each rank holds fused: its share of q, then its share of k, then of v.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .entries import Kind

# The slices of all ranks, in order -> the tensor. Raises ValueError for slices that do not make one.
Join = Callable[[Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class Cut:
    """Each rank has its share along a dimension: of `fused` tensors, its share of one after another."""

    axis: int
    fused: int = 1

    def __call__(self, slices: Sequence[Tensor]) -> Tensor:
        if any(part.shape[self.axis] % self.fused for part in slices):
            raise ValueError(f"they do not hold {self.fused} tensors each")
        shares = zip(*(part.chunk(self.fused, self.axis) for part in slices), strict=True)
        return torch.cat([share for each in shares for share in each], self.axis)


def scales(slices: Sequence[Tensor]) -> Tensor:
    """Every rank has a scale for each row: one column a rank."""
    return torch.stack(list(slices), 1)


def first(slices: Sequence[Tensor]) -> Tensor:
    """Every rank has the whole, and that of the first counts."""
    if any(part.shape != slices[0].shape for part in slices):
        raise ValueError("their shapes differ")
    return slices[0]


def equal(slices: Sequence[Tensor]) -> Tensor:
    """Every rank has the whole, bit for bit."""
    whole = first(slices)
    if not whole.is_meta:
        bits, *others = (part.flatten().contiguous().view(torch.uint8) for part in slices)  # NaN equals NaN
        if not all(torch.equal(bits, other) for other in others):
            raise ValueError("they should be copies, and their numbers differ")
    return whole


@dataclass(frozen=True)
class Program:
    """How one program's checkpoints are put together.

    sign: a tensor that only its files hold. cuts: what a name ends in -> how slices become one tensor; the
    first that fits counts. rest: that of all others. experts: a pattern of names, in two groups; each
    data-parallel rank has an expert of its own, and its number comes between them. again: names under which a
    tensor stands once more -> its own.
    """

    kind: Kind
    sign: str
    cuts: Mapping[str, Join]
    rest: Join
    experts: str = r"(?!)()()"  # none
    again: Mapping[str, str] = field(default_factory=dict)

    def join(self, name: str) -> Join:
        """Return what makes one tensor of the ranks' slices of that name."""
        found = (join for end, join in self.cuts.items() if re.search(rf"(?:^|\.)(?:{end})$", name))
        return next(found, self.rest)

    def numbered(self, name: str, rank: int) -> str:
        """Return the name that a tensor of a data-parallel rank has among those of all."""
        return re.sub(self.experts, rf"\g<1>{rank}.\g<2>", name)


_BOTH = r"(?:weight|bias)"

# SwissArmyTransformer's of GLM-130B, as tools/convert_tp.py of THUDM/GLM-130B merges them; but what was
# quantised stays so, with a scale a row and rank where rows were cut.
_GLM = Program(
    "sat",
    "transformer.word_embeddings.weight",
    {
        r"(?:attention\.dense|mlp\.dense_4h_to_h)\.weight": Cut(1),
        r"(?:attention\.dense|mlp\.dense_4h_to_h)\.weight_scale": scales,
        r"mlp\.dense_h_to_4h\.\w+": Cut(0, fused=2),
        r"(?:word_embeddings|attention\.query_key_value)\.\w+": Cut(0),
    },
    first,
)
# mpu/transformer_enc_dec.py of TsinghuaAI/CPM-2-Finetune; mpu/baselayer.py of CPM-2-Pretrain, branch moe.
_CPM2 = Program(
    "megatron",
    "word_embeds.weight",
    {
        r"(?:word_embeds|lm_head)\.weight": Cut(0),
        r"self_attn\.project\.weight": Cut(0, fused=3),
        r"cross_attn\.project_q\.weight": Cut(0),
        r"cross_attn\.project_kv\.weight": Cut(0, fused=2),
        r"relative_attention_bias\.weight": Cut(1),
        r"dense_relu_dense\.wi_[01]\.weight": Cut(0),
        r"(?:self_attn\.dense|cross_attn\.dense|dense_relu_dense\.wo)\.weight": Cut(1),
    },
    equal,
    experts=r"^(.*\.expert_network\.)(dense_relu_dense\..*)$",
    again=dict.fromkeys(("encoder.word_embeds.weight", "decoder.word_embeds.weight"), "word_embeds.weight"),
)
# mpu/transformer.py and model/modeling.py of PLUG, in alibaba/AliceMind.
_PLUG = Program(
    "megatron",
    "bert.embeddings.word_embeddings.weight",
    {
        r"word_embeddings\.weight|cls\.predictions\.(?:bias|decoder_weight)": Cut(0),
        rf"query_key_value\.{_BOTH}": Cut(0, fused=3),
        rf"cross_attention\.query\.{_BOTH}": Cut(0),
        rf"cross_attention\.key_value\.{_BOTH}": Cut(0, fused=2),
        rf"layer\.\d+\.intermediate\.(?:dense\.)?{_BOTH}": Cut(0),
        r"(?:attention\.dense|output\.dense|cross_attention\.dense|layer\.\d+\.output)\.weight": Cut(1),
    },
    equal,
    again={"cls.predictions.decoder_weight": "bert.embeddings.word_embeddings.weight"},
)
# llama/model.py of meta-llama/llama (fairscale's layers). Norms and frequencies are on every rank.
_META = Program(
    "bin",
    "tok_embeddings.weight",
    {
        r"(?:tok_embeddings|attention\.wo|feed_forward\.w2)\.weight": Cut(1),
        r"(?:attention\.w[qkv]|feed_forward\.w[13]|output)\.weight": Cut(0),
    },
    first,
)
PROGRAMS = (_GLM, _CPM2, _PLUG, _META)
