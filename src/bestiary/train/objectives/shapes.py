"""Shapes that must agree: torch would broadcast them, and the loss would be of something else."""

from __future__ import annotations

from torch import Tensor

from ...errors import RequestError


def alike(**tensors: Tensor) -> None:
    """Raise RequestError where tensors differ in shape."""
    if len({tensor.shape for tensor in tensors.values()}) > 1:
        said = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise RequestError(f"{said}: these should have one shape")


def scored(logits: Tensor, labels: Tensor) -> None:
    """Raise RequestError where logits (*L, V) are not those of labels (*L)."""
    if logits.shape[:-1] != labels.shape:
        raise RequestError(
            f"logits {tuple(logits.shape)} are not those of labels {tuple(labels.shape)}: they have one more "
            "axis, the vocabulary"
        )
