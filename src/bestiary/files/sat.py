"""SwissArmyTransformer checkpoints, as GLM-130B is published: a folder an iteration, in it a file a rank.

`latest` names the iteration's folder, whose mp_rank_00_model_states.pt, mp_rank_01 ... each hold the slices
of one tensor-parallel rank under the same names. Read as one checkpoint, as tools/convert_tp.py of
THUDM/GLM-130B merges them; but what was quantised stays so, with a scale a row and rank where rows were cut.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError
from . import torchbin
from .entries import Entry
from .paths import read_bytes, resolve
from .source import Source

LATEST = "latest"
_SHARD = "mp_rank_{:02d}_model_states.pt"
_MOST_RANKS, _MOST_BYTES = 99, 255
_REMEDY = "Download all files of the model again, and keep its folders as they are"

Join = Callable[[Sequence[Tensor]], Tensor]


def read(folder: Path) -> tuple[dict[str, Entry], dict[str, object], list[Source]]:
    """Return the merged tensors of the newest iteration, its plain values, and the open files.

    Raises CheckpointError: no such files, a rank whose tensors are named otherwise, and what torchbin.read
    refuses.
    """
    sources = [Source.open(path) for path in _shards(folder)]
    ranks, values = zip(*map(torchbin.read, sources), strict=True)
    for source, entries in zip(sources, ranks, strict=True):
        if odd := ranks[0].keys() ^ entries.keys():
            what = f"holds other tensors than rank 0: {', '.join(sorted(odd)[:10])}"
            raise source.error(what, remedy=_REMEDY)
    merged = {name: _merged([entries[name] for entries in ranks]) for name in ranks[0]}
    return merged, values[0], sources


def _shards(folder: Path) -> list[Path]:
    """Return the files of all ranks, in order."""
    said = read_bytes(folder / LATEST, limit=_MOST_BYTES)
    place = resolve(folder, said.decode("utf-8", "replace").strip())
    paths = [resolve(place, _SHARD.format(rank)) for rank in range(_MOST_RANKS)]
    there = [path for path in paths if path.exists()]
    if not there or there != paths[: len(there)]:
        reason = f"the files mp_rank_00 to mp_rank_{len(there):02d}_model_states.pt are not all there"
        raise CheckpointError(reason, file=place, remedy=_REMEDY)
    return there


def _merged(parts: list[Entry]) -> Entry:
    """Return the whole tensor of one slice a rank; it is put together each time that it is read."""
    first = parts[0]
    if len(parts) == 1:
        return first
    join = next((join for end, join in _JOINS if end.search(first.name)), _same)
    try:
        whole = join([torch.empty(part.shape, device="meta") for part in parts])
        if len({part.dtype for part in parts}) > 1:
            raise ValueError("their types differ")
    except (ValueError, RuntimeError) as error:
        shapes = ", ".join(f"{list(part.shape)} {part.dtype}" for part in parts)
        reason = f"the ranks' slices {shapes} do not make one tensor"
        raise CheckpointError(reason, file=first.file, tensor=first.name, remedy=_REMEDY) from error
    nbytes = sum(part.nbytes for part in parts)
    return replace(first, shape=tuple(whole.shape), nbytes=nbytes, load=partial(_load, join, parts))


def _load(join: Join, parts: Sequence[Entry]) -> Tensor:
    return join([part.read() for part in parts])


def _rows(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts))


def _columns(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts), 1)


def _scales(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(parts), 1)


def _halves(parts: Sequence[Tensor]) -> Tensor:
    """Each rank has its share of the values, then its share of the gates."""
    values, gates = zip(*(part.chunk(2) for part in parts), strict=True)
    return torch.cat([*values, *gates])


def _same(parts: Sequence[Tensor]) -> Tensor:
    """What every rank has whole."""
    if any(part.shape != parts[0].shape for part in parts):
        raise ValueError("their shapes differ")
    return parts[0]


_JOINS: tuple[tuple[re.Pattern[str], Join], ...] = (
    (re.compile(r"\.(attention\.dense|mlp\.dense_4h_to_h)\.weight$"), _columns),
    (re.compile(r"\.(attention\.dense|mlp\.dense_4h_to_h)\.weight_scale$"), _scales),
    (re.compile(r"\.mlp\.dense_h_to_4h\.\w+$"), _halves),
    (re.compile(r"\.(word_embeddings|attention\.query_key_value)\.\w+$"), _rows),
)
