"""Which weights these are: one hash for the files of a model, read once, beside everything else."""

from __future__ import annotations

import hashlib
from pathlib import Path

_KINDS = frozenset({".safetensors", ".bin", ".gguf", ".pt", ".pth", ".model", ".npz", ".msgpack"})


def sha256(path: Path) -> str:
    """Return the SHA-256 of the lines "<SHA-256 of a weight file>  <its name>", in the order of the names.

    path: a weight file, or a folder of them. `sha256sum * | sha256sum` of these files says the same.
    """
    files = [path] if path.is_file() else sorted(one for one in path.iterdir() if one.suffix in _KINDS)
    lines = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            lines.update(f"{hashlib.file_digest(opened, 'sha256').hexdigest()}  {file.name}\n".encode())
    return lines.hexdigest()
