"""Weight files as a stranger sends them: safetensors, torch .bin, GGUF, JAX arrays, flax streams, and shards.

Nothing is trusted: every header is checked before it is used, a pickle is read as data, a name never leaves
its folder, and whatever is wrong is one CheckpointError that names the file, the tensor, the byte and the
remedy. Opening reads headers only; a tensor is a view of the file's memory map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .entries import Checkpoint, Entry
    from .opening import open_checkpoint

__all__ = ["Checkpoint", "Entry", "open_checkpoint"]


def __getattr__(name: str) -> object:
    # On demand: they need torch, which takes a second to import, and tokenizers need files.paths alone.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import entries, opening

    return opening.open_checkpoint if name == "open_checkpoint" else getattr(entries, name)
