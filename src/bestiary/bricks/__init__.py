"""The bricks. Leading dimensions are opaque to every one of them: only a Context knows what they mean."""

from .attention import Attention, Heads
from .blocks import PreNorm
from .feedforward import GatedMLP
from .positions import (
    DynamicNTK,
    Factors,
    Frequencies,
    Interpolated,
    Llama3,
    Plain,
    Position,
    Rotary,
    Yarn,
    unmoved,
)

__all__ = [
    "Attention",
    "DynamicNTK",
    "Factors",
    "Frequencies",
    "GatedMLP",
    "Heads",
    "Interpolated",
    "Llama3",
    "Plain",
    "Position",
    "PreNorm",
    "Rotary",
    "Yarn",
    "unmoved",
]
