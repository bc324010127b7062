"""Opening weights: which file of a folder holds them, and of which kind it is."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import CheckpointError
from . import archive, easylm, gguf, index, jax_arrays, ranks, safetensors, torchbin
from .entries import Checkpoint, Kind
from .paths import resolve
from .source import Source

_KINDS: dict[str, Kind] = {
    ".safetensors": "safetensors",
    ".bin": "bin",
    ".pt": "bin",
    ".pth": "bin",
    ".ckpt": "bin",
    ".gguf": "gguf",
}
_READERS: dict[Kind, index.Reader] = {
    "safetensors": safetensors.read,
    "bin": torchbin.read,
    "gguf": gguf.read,
    "easylm": easylm.read,
}
# What a published folder calls its weights, best first.
_PUBLISHED = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
_INDEX = ".index.json"
_JAX = "ckpt-0"  # the folder of arrays in xai-org/grok-1
_RANKS = "model"  # that of the ranks' files in damo/nlp_plug_text-generation_27B


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a model's weights: a file, an index of shards, or a folder that holds them.

    In a folder the published names are looked for first (an index before a single file, safetensors before
    .bin), then the files of ranks, then the only file, or the only split GGUF, of a kind, then numbered JAX
    arrays, there or in ckpt-0, then the ranks that Megatron's or DeepSpeed's tracker names, or in model.
    Raises CheckpointError.
    """
    path = Path(path)
    # Not Path.is_dir, which raises for a name that is too long.
    file = _find(path) if os.path.isdir(path) else path  # noqa: PTH112
    if jax_arrays.is_folder(file):
        return Checkpoint(path, "jax", *jax_arrays.read(file))
    if file.name in ranks.TRACKERS or ranks.is_folder(file) or ranks.is_part(file):
        return Checkpoint(path, *ranks.read(file))
    if file.name.endswith(_INDEX):
        kind = _KINDS.get(Path(file.name.removesuffix(_INDEX)).suffix)
        if kind is None or kind == "gguf":
            raise CheckpointError("is no index of weights", file=file, remedy="Name the folder it lies in")
        return Checkpoint(path, kind, *index.read(file, _READERS[kind]))
    if _KINDS.get(file.suffix.lower()) == "gguf":
        return Checkpoint(path, "gguf", *gguf.read_split(file))
    source = Source.open(file)
    kind = _KINDS.get(file.suffix.lower()) or _kind(source)
    entries, metadata = _READERS[kind](source)
    return Checkpoint(path, kind, entries, metadata, [source])


def _kind(source: Source) -> Kind:
    """Tell the kind of a file whose name does not (a blob of a cache) by how it begins."""
    begin = bytes(source.data[:10])
    if begin.startswith(b"GGUF"):
        return "gguf"
    if archive.is_archive(source) or begin.startswith(b"\x80"):
        return "bin"
    if begin[8:9] == b"{":
        return "safetensors"
    if easylm.is_stream(source):
        return "easylm"
    raise source.error("is no weight file known here", remedy="Name a .safetensors, .gguf or .bin file")


def _find(folder: Path) -> Path:
    """Return the weight file of a folder, or its index, or the folder of its JAX arrays."""
    try:
        names = sorted(each.name for each in os.scandir(folder))
    except OSError as error:
        reason = f"cannot be listed: {error.strerror}"
        raise CheckpointError(reason, file=folder, remedy="Check the path") from error
    for name in _PUBLISHED:
        if name in names:
            return resolve(folder, name)
    if ranks.is_folder(folder):
        return folder
    for kind in (".safetensors", ".bin", ".gguf", ".pth", ".pt", ".ckpt"):
        found = [name for name in names if name.endswith((kind, kind + _INDEX))]
        indexes = [name for name in found if name.endswith(_INDEX)]
        whole = indexes or [name for name in found if not gguf.is_later_part(name)]
        if len(whole) > 1:
            listed = ", ".join(whole[:10])
            reason = f"holds several weight files: {listed}"
            raise CheckpointError(reason, file=folder, remedy="Name one of them")
        if whole:
            return resolve(folder, whole[0])
    if jax_arrays.is_folder(folder):
        return folder
    for name in (_JAX, *ranks.TRACKERS):
        if name in names:
            return resolve(folder, name)
    if _RANKS in names and ranks.is_folder(resolve(folder, _RANKS)):
        return folder / _RANKS
    remedy = "Name a folder with a .safetensors, .gguf or .bin file"
    raise CheckpointError("holds no weight file", file=folder, remedy=remedy)
