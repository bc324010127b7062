"""Sharded checkpoints: an index file says which tensor lies in which file of the folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ..errors import CheckpointError
from . import strict_json
from .entries import Entry
from .paths import JSON_LIMIT, read_bytes, resolve
from .source import Source

Reader = Callable[[Source], tuple[dict[str, Entry], Mapping[str, object]]]

_REMEDY = "Download all files of the model again, from one revision"
_MOST_SHARDS, _MOST_NAMED = 1000, 10


def read(path: Path, reader: Reader) -> tuple[dict[str, Entry], dict[str, object], list[Source]]:
    """Return the tensors of all shards that an index names, their metadata, and the open files.

    Raises CheckpointError: for an index that is not one, a shard whose name leaves the folder or that
    `reader` refuses, and when index and shards do not list the same tensors, each once.
    """
    weight_map = _weight_map(path)
    shards = sorted(set(weight_map.values()))
    entries: dict[str, Entry] = {}
    metadata: dict[str, object] = {}
    sources: list[Source] = []
    for shard in shards:
        source = Source.open(resolve(path.parent, shard))
        sources.append(source)
        found, beside = reader(source)
        metadata.update(beside)
        for name, entry in found.items():
            if (listed := weight_map.get(name)) != shard:
                what = (
                    "which the index does not list"
                    if listed is None
                    else f"which the index places in {listed!r}"
                )
                raise source.error(f"holds a tensor {what}", tensor=name, offset=entry.offset, remedy=_REMEDY)
            entries[name] = entry
    if missing := weight_map.keys() - entries.keys():
        shard = weight_map[min(missing)]
        reason = f"{len(missing)} tensors are missing from their shards ({shard!r}): {_listing(missing)}"
        raise CheckpointError(reason, file=path, remedy=_REMEDY)
    return entries, metadata, sources


def _listing(names: Iterable[str]) -> str:
    first = sorted(names)
    return ", ".join(name[:200] for name in first[:_MOST_NAMED]) + (
        ", ..." if len(first) > _MOST_NAMED else ""
    )


def _weight_map(path: Path) -> dict[str, str]:
    try:
        index = strict_json.parse(read_bytes(path, limit=JSON_LIMIT))
    except strict_json.InvalidJSONError as fault:
        raise CheckpointError(fault.reason, file=path, offset=fault.offset, remedy=_REMEDY) from fault
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError("is no index: it has no weight_map", file=path, remedy=_REMEDY)
    if not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError("its weight_map has a file name that is no string", file=path, remedy=_REMEDY)
    if len(set(weight_map.values())) > _MOST_SHARDS:
        raise CheckpointError(f"it names more than {_MOST_SHARDS} shards", file=path, remedy=_REMEDY)
    return weight_map
