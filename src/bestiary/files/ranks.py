"""Checkpoints of several ranks, as programs save that train over many devices: GLM-130B, CPM-2, PLUG, LLaMA.

A folder an iteration, in it a file a model-parallel rank, mp_rank_00_model_states.pt, mp_rank_01 ..., or one
for each data-parallel and model-parallel rank, mp_rank_00_00_model_states.pt; beside the folder a file that
names it. Or Meta's consolidated.00.pth, consolidated.01.pth ... Read as one checkpoint, under the names that
the whole model would have.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError
from . import torchbin
from .cuts import PROGRAMS, Join, Program, equal
from .entries import Entry, Kind
from .paths import read_bytes, resolve
from .source import DTYPES, Source

# What names the iteration's folder: Megatron's file, and DeepSpeed's.
TRACKERS = ("latest_checkpointed_iteration.txt", "latest")
_SHARD = re.compile(r"mp_rank_(?:(?P<replica>\d{2,4})_)?(?P<part>\d{2,4})_model_states\.pt")
_CONSOLIDATED = re.compile(r"consolidated\.(?P<part>\d\d)\.pth")
_MOST_RANKS, _MOST_BYTES = 4096, 255
_REMEDY = "Download all files of the model again, and keep its folders as they are"

Rank = tuple[int, int]  # data parallel, model parallel
Entries = dict[str, Entry]


def is_folder(path: Path) -> bool:
    """Tell whether a folder holds ranks' files; Meta's only or last rank's alone is a file like any other."""
    return bool(_hits(path, _SHARD)) or is_part(path / "consolidated.00.pth")


def is_part(path: Path) -> bool:
    """Tell whether a file is one of several of Meta's."""
    ranks = [hit[0] for hit in _hits(path.parent, _CONSOLIDATED)]
    return _CONSOLIDATED.fullmatch(path.name) is not None and ranks not in ([], ["consolidated.00.pth"])


def _hits(folder: Path, names: re.Pattern[str]) -> list[re.Match[str]]:
    try:
        with os.scandir(folder) as files:
            return [hit for each in files if (hit := names.fullmatch(each.name))]
    except (OSError, ValueError):  # a file; no name at all
        return []


def read(path: Path) -> tuple[Kind, Entries, dict[str, object], list[Source]]:
    """Return the kind of checkpoint, its merged tensors, the plain values of the first rank, the open files.

    path: the folder of the ranks' files, the file that names it, or one of Meta's. Raises CheckpointError:
    ranks that are missing, of another iteration, or with other tensors than the first; slices that do not
    make one tensor; what torchbin.read refuses. What should be the same on all ranks is compared when it is
    read.
    """
    folder = _iteration(path) if path.name in TRACKERS else path.parent if is_part(path) else path
    sources = {rank: Source.open(file) for rank, file in _files(folder).items()}
    both = {rank: torchbin.read(source) for rank, source in sources.items()}
    entries, values = {r: each[0] for r, each in both.items()}, {r: each[1] for r, each in both.items()}
    _check_alike(sources, entries, values)
    found = entries[0, 0]
    program = next((program for program in PROGRAMS if program.sign in found), None)
    opened, beside = list(sources.values()), dict(values[0, 0])
    if program is None:
        if len(sources) == 1:  # a model that nothing was cut of
            return "bin", found, beside, opened
        raise sources[0, 0].error("was cut by a program that is not known here", remedy=_REMEDY)
    return program.kind, _merge(program, entries), beside, opened


def _iteration(tracker: Path) -> Path:
    """Return the folder that a file names."""
    said = read_bytes(tracker, limit=_MOST_BYTES).decode("utf-8", "replace").strip()
    folder = resolve(tracker.parent, said)
    if not folder.is_dir():
        raise CheckpointError(f"names the folder {said!r}, which is not there", file=tracker, remedy=_REMEDY)
    return folder


def _files(folder: Path) -> dict[Rank, Path]:
    """Return the file of each rank, in order."""
    hits = _hits(folder, _SHARD) or _hits(folder, _CONSOLIDATED)
    replicated = [hit.groupdict().get("replica") for hit in hits]
    found = {
        (int(replica or 0), int(hit["part"])): hit.string
        for replica, hit in zip(replicated, hits, strict=True)
    }
    paired = {replica is not None for replica in replicated}
    if len(paired) > 1 or len(found) < len(hits):
        raise CheckpointError("names its ranks' files in several ways", file=folder, remedy=_REMEDY)
    replicas, slices = (1 + max((rank[i] for rank in found), default=0) for i in (0, 1))
    if replicas * slices > _MOST_RANKS:
        raise CheckpointError(f"has ranks beyond {_MOST_RANKS}", file=folder, remedy=_REMEDY)
    wanted = list(product(range(replicas), range(slices)))
    if missing := [rank for rank in wanted if rank not in found]:
        numbers = ("{:02d}_{:02d}" if paired == {True} else "{1:02d}").format(*missing[0])
        others = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        meta = any(hit.re is _CONSOLIDATED for hit in hits)
        name = f"consolidated.{numbers}.pth" if meta else f"mp_rank_{numbers}_model_states.pt"
        reason = f"the ranks' files are not all there: {name} is missing{others}"
        raise CheckpointError(reason, file=folder, remedy=_REMEDY)
    return {rank: resolve(folder, found[rank]) for rank in wanted}


def _check_alike(
    sources: Mapping[Rank, Source],
    entries: Mapping[Rank, Entries],
    values: Mapping[Rank, Mapping[str, object]],
) -> None:
    """Refuse ranks that are not of one model."""
    parts = 1 + max(part for _, part in sources)
    first = values[0, 0].get("iteration")
    for rank, source in sources.items():
        if odd := entries[0, 0].keys() ^ entries[rank].keys():
            named = ", ".join(sorted(odd)[:10])
            raise source.error(f"holds other tensors than rank 0: {named}", remedy=_REMEDY)
        own = values[rank].get("iteration", first)
        if own != first:
            raise source.error(f"is of iteration {own!r}, and rank 0 of {first!r}", remedy=_REMEDY)
        said = values[rank].get("mp_world_size")  # DeepSpeed's
        if isinstance(said, int) and said != parts:
            raise source.error(f"is one of {said} ranks, and {parts} are there", remedy=_REMEDY)


def _merge(program: Program, entries: Mapping[Rank, Entries]) -> Entries:
    """Return the whole model's tensors: of the slices first, then of the data-parallel ranks."""
    replicas, slices = (sorted({rank[i] for rank in entries}) for i in (0, 1))
    whole: dict[str, list[Entry]] = {}
    for name in entries[0, 0]:
        for replica in replicas:
            parts = [entries[replica, part][name] for part in slices]
            ours = program.again.get(name) or program.numbered(name, replica)
            whole.setdefault(ours, []).append(_merged(program.join(name), parts))
    return {name: replace(_merged(equal, copies), name=name) for name, copies in whole.items()}


def _merged(join: Join, parts: Sequence[Entry]) -> Entry:
    """Return the tensor that entries make; it is put together each time that it is read."""
    first = parts[0]
    if len(parts) == 1:
        return first
    try:
        if len({part.dtype for part in parts}) > 1:
            raise ValueError("their types differ")
        whole = join([torch.empty(part.shape, device="meta") for part in parts])
    except (ValueError, RuntimeError, IndexError) as error:
        raise _unfit(parts, error) from error
    nbytes = whole.numel() * DTYPES[first.dtype].itemsize
    return replace(first, shape=tuple(whole.shape), nbytes=nbytes, load=partial(_load, join, parts))


def _load(join: Join, parts: Sequence[Entry]) -> Tensor:
    try:
        return join([part.read() for part in parts])
    except ValueError as error:
        raise _unfit(parts, error) from error


def _unfit(parts: Iterable[Entry], error: Exception) -> CheckpointError:
    shapes = ", ".join(f"{list(part.shape)} {part.dtype}" for part in parts)
    first = next(iter(parts))
    reason = f"the ranks' slices {shapes} do not make one tensor: {str(error).splitlines()[0]}"
    return CheckpointError(reason, file=first.file, tensor=first.name, remedy=_REMEDY)
