"""Which weights these are: one hash for the files of a model, read once, beside everything else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

_PART = 4 << 20
_KINDS = frozenset({".safetensors", ".bin", ".gguf", ".pt", ".pth", ".model", ".npz", ".msgpack"})


class StoppedError(Exception):
    """Nobody wants to know any more."""


def sha256(path: Path, stopped: Callable[[], bool] = lambda: False) -> str:
    """Return the SHA-256 of the lines "<SHA-256 of a weight file>  <its name>", in the order of the names.

    path: a weight file, or a folder of them. `sha256sum * | sha256sum` of these files says the same.
    stopped: asked after every part of a file; StoppedError is raised when it says so.
    """
    files = [path] if path.is_file() else sorted(one for one in path.iterdir() if one.suffix in _KINDS)
    lines = hashlib.sha256()
    for file in files:
        own = hashlib.sha256()
        with file.open("rb") as opened:
            while part := opened.read(_PART):
                own.update(part)
                if stopped():
                    raise StoppedError
        lines.update(f"{own.hexdigest()}  {file.name}\n".encode())
    return lines.hexdigest()
