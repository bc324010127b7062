"""The rows of q and k in either order of their rotary pairs.

Hugging Face's ports of Llama keep the two channels of a pair dim / 2 apart; Meta's own files and GGUF keep
them beside each other (`Rotary.interleaved`). What holds a row for each output channel (weights, biases, B of
an adapter) says the same in both once its rows are in the order of the other.
"""

from __future__ import annotations

import re

from torch import Tensor, nn

from ..bricks import Attention, Rotary

_QK = re.compile(r"(.*)\.[qk](?:\.\w+)?")


def neighbours(rows: Tensor, model: nn.Module, path: str) -> Tensor:
    """Return rows (out, ...) of a port, in the order of a model whose pairs are neighbours.

    path: of the layer that they are for; rows of other layers than its q and k are as they are.
    """
    return _reordered(rows, model, path, apart=True)


def halves(rows: Tensor, model: nn.Module, path: str) -> Tensor:
    """Return rows (out, ...) of a model whose pairs are neighbours, in the order of a port."""
    return _reordered(rows, model, path, apart=False)


def interleaved(model: nn.Module) -> bool:
    """Tell whether a model's pairs are neighbours."""
    attentions = (module for module in model.modules() if isinstance(module, Attention))
    return any(isinstance(a.position, Rotary) and a.position.interleaved for a in attentions)


def _reordered(rows: Tensor, model: nn.Module, path: str, *, apart: bool) -> Tensor:
    """Take each head's first `dim` rows as pairs and turn (2, dim / 2) into (dim / 2, 2), or back."""
    hit = _QK.fullmatch(path)
    attn = model.get_submodule(hit[1]) if hit else None
    if not isinstance(attn, Attention) or not isinstance(attn.position, Rotary):
        return rows
    dim = attn.position.dim
    heads: Tensor = rows.unflatten(0, (-1, attn.head_dim))
    pairs = heads[:, :dim].unflatten(1, (2, dim // 2) if apart else (dim // 2, 2)).transpose(1, 2)
    out: Tensor = heads.clone()
    out[:, :dim] = pairs.flatten(1, 2)
    return out.flatten(0, 1)
