"""A module's weight as numbers, whatever it is packed in, and modules like others with another weight."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..errors import RequestError
from ..formats import FORMATS
from ..quant.linear import PackedEmbedding, PackedLinear
from .lora import LoRA, LoRAEmbedding, dense

M = TypeVar("M", bound=nn.Module)
_HALVES = {torch.float16: "F16", torch.bfloat16: "BF16"}


def rows(module: nn.Module) -> int | None:
    """Return the output channels of a linear layer, or the rows of a table; None of anything else."""
    value = getattr(module, "out_features", getattr(module, "num_embeddings", None))
    return value if isinstance(value, int) else None


def columns(module: nn.Module) -> int | None:
    """Return the input channels of a linear layer, or the width of a table; None of anything else."""
    value = getattr(module, "in_features", getattr(module, "embedding_dim", None))
    return value if isinstance(value, int) else None


def shape(model: nn.Module, name: str) -> tuple[int, ...]:
    """Return the shape of one of a model's tensors as it would be unpacked."""
    path, _, leaf = name.rpartition(".")
    owner = model.get_submodule(path)
    owner = owner.base if isinstance(owner, LoRA | LoRAEmbedding) else owner
    if leaf == "weight" and (out := rows(owner)) is not None:
        return out, columns(owner) or 0
    tensor = getattr(owner, leaf, None)
    return () if tensor is None else tuple(tensor.shape)


def clone(module: M) -> M:
    """Return a module with tensors and parts of its own table, which are the same until one is replaced."""
    made = copy.copy(module)
    for table in ("_parameters", "_buffers", "_modules"):
        made.__dict__[table] = dict(module.__dict__[table])
    return made


def holding(module: nn.Module, leaf: str, value: Tensor, dtype: torch.dtype) -> nn.Module:
    """Return a module like another, with one of its tensors replaced; of a matrix the rows may be others.

    A matrix of 16 bits stays so where the other's was; dtype: what the model computes in.
    """
    device = next((t.device for t in (*module.parameters(), *module.buffers())), torch.device("cpu"))
    value = value.detach().to(device)
    if leaf != "weight" or rows(module) is None:
        made, old = clone(module), getattr(module, leaf)
        made.register_parameter(leaf, nn.Parameter(value.to(old.dtype, copy=True)))
        return made
    if isinstance(module, nn.Linear | nn.Embedding):
        made = clone(module)
        made.register_parameter(leaf, nn.Parameter(value.to(module.weight.dtype, copy=True)))
    elif value.dtype in _HALVES and isinstance(module, PackedLinear | PackedEmbedding):
        made = _packed(module, value, dtype)
    else:
        made = _plain(module, value.to(dtype, copy=True))
    for name in ("out_features", "num_embeddings"):
        if hasattr(made, name):
            setattr(made, name, len(value))
    return made.train(module.training)


def merged(path: str, module: nn.Module) -> nn.Module:
    """Return a plain module that computes what an adapted one does, with a weight of its base's type.

    Raises RequestError for a base of packed integers, and for a sum that its base's type does not reach.
    """
    base, whole = module, dense(module)
    while isinstance(base, LoRA | LoRAEmbedding):
        base = base.base
    if isinstance(base, nn.Linear | nn.Embedding):
        return holding(base, "weight", _rounded(path, whole, base.weight.dtype), base.weight.dtype)
    if isinstance(base, PackedLinear | PackedEmbedding) and base.fmt.name in _HALVES.values():
        kind = next(kind for kind, name in _HALVES.items() if name == base.fmt.name)
        return holding(base, "weight", _rounded(path, whole, kind), torch.float32)
    raise RequestError(
        f"{path} is packed ({base}): rounded to its few steps again, the sum would lose much of the adapter. "
        "Keep the adapter beside this model, or merge it into the 16-bit base"
    )


def _rounded(path: str, whole: Tensor, dtype: torch.dtype) -> Tensor:
    rounded = whole.to(dtype)
    if not rounded.isfinite().all() and whole.isfinite().all():
        largest = whole.abs().max().item()
        raise RequestError(
            f"{path} would be {largest:.3g} with the adapter, which {str(dtype).removeprefix('torch.')} does "
            "not reach\nTry: a base in bfloat16 or float32 (bestiary convert --type), or keep the adapter "
            "beside it"
        )
    return rounded


def _packed(
    module: PackedLinear | PackedEmbedding, value: Tensor, dtype: torch.dtype
) -> PackedLinear | PackedEmbedding:
    fmt = FORMATS[_HALVES[value.dtype]]
    made: PackedLinear | PackedEmbedding
    with torch.device("meta"):  # its own weight is about to be replaced
        if isinstance(module, PackedLinear):
            made = PackedLinear(module.in_features, len(value), fmt, bias=module.bias is not None)
            made.bias = module.bias
        else:
            made = PackedEmbedding(len(value), module.embedding_dim, fmt, dtype=module.dtype)
    made.weight = value.contiguous().view(torch.uint8)
    return made


def _plain(module: nn.Module, value: Tensor) -> nn.Linear | nn.Embedding:
    with torch.device("meta"):
        if hasattr(module, "num_embeddings"):
            table = nn.Embedding(*value.shape)
            table.weight = nn.Parameter(value)
            return table
        linear = nn.Linear(value.shape[1], value.shape[0], bias=False)
    linear.weight = nn.Parameter(value)
    linear.register_parameter("bias", getattr(module, "bias", None))
    return linear
