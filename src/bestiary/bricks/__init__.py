"""The bricks. Leading dimensions are opaque to every one of them: only a Context knows what they mean."""

from .attention import Attention, ClippedAttention, Heads, Remembers
from .biases import ALiBi, RoundedALiBi, slopes
from .blocks import DeepNorm, InnerNorm, Parallel, PostNorm, PreNorm, Sandwich, SharedParallel
from .ends import Cap, Learned, NormedHead, Scale, Unplaced
from .experts import GatedSharedMoE, MoE, SharedMoE, softmax_of_top, top_of_softmax
from .feedforward import MLP, GatedMLP
from .norms import OffsetRMSNorm
from .positions import (
    DynamicNTK,
    Factors,
    Frequencies,
    Interpolated,
    Llama3,
    Met,
    Plain,
    Position,
    Rotary,
    Yarn,
    unmoved,
)

__all__ = [
    "MLP",
    "ALiBi",
    "Attention",
    "Cap",
    "ClippedAttention",
    "DeepNorm",
    "DynamicNTK",
    "Factors",
    "Frequencies",
    "GatedMLP",
    "GatedSharedMoE",
    "Heads",
    "InnerNorm",
    "Interpolated",
    "Learned",
    "Llama3",
    "Met",
    "MoE",
    "NormedHead",
    "OffsetRMSNorm",
    "Parallel",
    "Plain",
    "Position",
    "PostNorm",
    "PreNorm",
    "Remembers",
    "Rotary",
    "RoundedALiBi",
    "Sandwich",
    "Scale",
    "SharedMoE",
    "SharedParallel",
    "Unplaced",
    "Yarn",
    "slopes",
    "softmax_of_top",
    "top_of_softmax",
    "unmoved",
]
