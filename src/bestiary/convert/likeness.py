"""Whether two models compute the same, module by module, and what to do to the weights of one for the other.

What a model computes is in its bricks: their classes, their settings, the shapes of their weights. So a file
can be proven before it is written: its metadata are read back into bricks, and these are compared with the
source's. Some bricks hold one equation in two forms; then the weights differ by a rule that is known here.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..bricks import Attention, Factors, Llama3, NormedHead, OffsetRMSNorm, Plain, Rotary
from ..bricks.positions import Frequencies
from ..config import ACTIVATIONS

# Turns a tensor of the source into the target's.
Change = Callable[[Tensor], Tensor]
_GELUS = (ACTIVATIONS["gelu"], ACTIVATIONS["gelu_new"])
_BOOKKEEPING = frozenset({"training", "dtype", "fmt"})


def differences(source: nn.Module, target: nn.Module) -> Iterator[str]:
    """Yield in words what the target computes otherwise than the source; nothing where they agree."""
    ours, theirs = dict(source.named_modules()), dict(target.named_modules())
    for path in dict.fromkeys([*ours, *theirs]):
        if path not in theirs or path not in ours:
            missing, there = ("target", ours) if path not in theirs else ("source", theirs)
            yield f"{path}: the {missing} has no {type(there[path]).__name__}"
            continue
        a, b = _settings(ours[path]), _settings(theirs[path])
        for key in dict.fromkeys([*a, *b]):
            if not _same(a.get(key), b.get(key)):
                yield f"{path or 'model'}: {key} is {_short(a.get(key))} and would be {_short(b.get(key))}"


def changes(source: nn.Module, target: nn.Module) -> Mapping[str, Change]:
    """Return what to do to which tensors of the source, by name, for the target to compute the same."""
    found: dict[str, Change] = {}
    for path, theirs in target.named_modules():
        ours = source.get_submodule(path)
        if isinstance(ours, Attention) and isinstance(theirs, Attention):
            found |= _paired(path, ours, theirs)
        elif isinstance(ours, OffsetRMSNorm) and isinstance(theirs, nn.RMSNorm):
            found[f"{path}.weight"] = lambda weight: 1 + weight.float()
        elif isinstance(ours, nn.RMSNorm) and isinstance(theirs, OffsetRMSNorm):
            found[f"{path}.weight"] = lambda weight: weight.float() - 1
        elif isinstance(ours, NormedHead) and not isinstance(theirs, NormedHead):
            found[f"{path}.weight"] = lambda weight: F.normalize(weight.float())
    return found


def _paired(path: str, ours: Attention, theirs: Attention) -> dict[str, Change]:
    """Return how the rows of q and k, and what goes with them, are put in the target's order."""
    a, b = ours.position, theirs.position
    if not isinstance(a, Rotary) or not isinstance(b, Rotary) or a.interleaved == b.interleaved:
        return {}
    order = functools.partial(neighbours if b.interleaved else halves, head=ours.head_dim, turning=a.dim)
    parts = ("q.weight", "q.bias", "k.weight", "k.bias", "q_norm.weight", "k_norm.weight")
    return {f"{path}.{part}": order for part in parts}


def neighbours(rows: Tensor, *, head: int, turning: int) -> Tensor:
    """Put rows i and i + turning / 2 of each head, of `head` rows, side by side."""
    return _reordered(rows, head, turning, (2, -1))


def halves(rows: Tensor, *, head: int, turning: int) -> Tensor:
    """Put neighbouring rows of each head turning / 2 rows apart: `neighbours`, backwards."""
    return _reordered(rows, head, turning, (-1, 2))


def _reordered(rows: Tensor, head: int, turning: int, pairs: tuple[int, int]) -> Tensor:
    heads = torch.unflatten(rows, 0, (-1, head))
    turned = torch.unflatten(heads[:, :turning], 1, pairs).transpose(1, 2).flatten(1, 2)
    return torch.cat([turned, heads[:, turning:]], 1).flatten(0, 1)


def _settings(module: nn.Module) -> dict[str, object]:
    """Return what a module computes with: its class, its settings, the shapes of its own weights."""
    if isinstance(module, NormedHead) or hasattr(module, "in_features"):
        sizes = _linear_sizes(module)
        return {"class": "Linear", **sizes}
    if hasattr(module, "num_embeddings"):
        return {"class": "Embedding", "rows": module.num_embeddings, "width": module.embedding_dim}
    settings: dict[str, object] = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and name not in _BOOKKEEPING and not isinstance(value, nn.Module | Tensor)
    }
    settings |= {name: tuple(weight.shape) for name, weight in module.named_parameters(recurse=False)}
    if isinstance(module, OffsetRMSNorm | nn.RMSNorm):
        settings.pop("normalized_shape", None)
        settings.pop("elementwise_affine", None)
        kind = type(module)
        return {"class": "RMSNorm" if kind is OffsetRMSNorm else kind.__name__, **settings}
    return {"class": type(module).__name__, **settings}


def _linear_sizes(module: nn.Module) -> dict[str, object]:
    if isinstance(module, NormedHead):
        rows, columns = module.weight.shape
        return {"in": columns, "out": rows, "bias": False}
    bias = getattr(module, "bias", None) is not None
    return {"in": module.in_features, "out": module.out_features, "bias": bias}


def _same(a: object, b: object) -> bool:
    if isinstance(a, Rotary) and isinstance(b, Rotary):
        frequencies = _same_frequencies(a, b)
        plain = (replace(each, interleaved=False, frequencies=Plain()) for each in (a, b))
        return frequencies and _same(*(_plain(each) for each in plain))
    return _plain(a) == _plain(b)


def _same_frequencies(a: Rotary, b: Rotary) -> bool:
    """Tell whether two rotations turn alike: Llama 3's rule, and the factors that it amounts to."""
    first, second = a.frequencies, b.frequencies
    if isinstance(first, Llama3) and isinstance(second, Factors):
        return factors(a) == list(second.factors)
    return _plain(first) == _plain(second)


def factors(rotary: Rotary) -> list[float] | None:
    """Return what each turn is divided by, as GGUF's rope_freqs has it; None where no such numbers exist."""
    frequencies: Frequencies = rotary.frequencies
    if isinstance(frequencies, Factors):
        return list(frequencies.factors)
    if not isinstance(frequencies, Llama3):
        return None
    place = _Start()
    plain, turns = (kind(rotary.dim, rotary.base, place) for kind in (Plain(), frequencies))
    return [float(factor) for factor in plain / turns]


class _Start:
    """The first position: where frequencies are asked for that do not depend on it."""

    positions = torch.zeros(1, dtype=torch.int64)
    lengths = torch.ones(1, dtype=torch.int64)
    prompt = None


def gelu(model: nn.Module) -> object:
    """Return which gelu a model computes, None for one without."""
    found = (getattr(module, "act", None) for module in model.modules())
    return next((act for act in found if act in _GELUS), None)


def _plain(value: object) -> object:
    """Return a value in a form that can be compared: functions by name, floats as GGUF stores them."""
    if value in _GELUS:
        return "gelu"  # GGUF has one name for both, and llama.cpp computes tanh's
    if isinstance(value, float):
        return float(torch.tensor(value, dtype=torch.float32))
    if isinstance(value, nn.Module):
        return str(value)  # what a score's bias is: its weights are compared where they stand
    if isinstance(value, functools.partial):
        return _plain(value.func), _plain(value.args), _plain(value.keywords)
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | types.MethodType):
        cells = getattr(value, "__closure__", None) or ()
        return value.__module__, value.__qualname__, tuple(_plain(cell.cell_contents) for cell in cells)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return type(value).__name__, {key: _plain(item) for key, item in vars(value).items()}
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
