"""BELLE's LLaMA: every file of its repositories, XORed with the bytes of Meta's consolidated.00.pth.

As models/decrypt.py of LianjiaTech/BELLE: NAME.SHA256.enc is the SHA-256 of NAME, 32 bytes, then NAME, of
which each 10 MiB meet the next 10 MiB of the key; after the key's last piece, repeated to that length, comes
its first again.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import CheckpointError
from ..files.paths import open_regular, resolve
from .folder import making

# Bytes done, and bytes in all.
Progress = Callable[[int, int], None]

_NAME = re.compile(r"(?P<name>.+)\.(?P<digest>[0-9a-f]{64})\.enc")
_PIECE = 10 << 20
_DIGEST = hashlib.sha256().digest_size


def is_encrypted(path: Path) -> bool:
    """Tell whether a path is a folder with files in this form."""
    return path.is_dir() and any(_NAME.fullmatch(each.name) for each in path.iterdir())


def names(folder: Path) -> list[str]:
    """Return the names of the plain files that a folder holds, the smallest first. Raises CheckpointError."""
    return list(_files(folder).values())


def decrypt(folder: Path, key: Path, to: Path, *, progress: Progress | None = None) -> list[Path]:
    """Write the plain files of a folder to a new one, each checked by its SHA-256; return them.

    key: consolidated.00.pth of the LLaMA that was tuned. Small files come first, so that a wrong key is known
    in a moment. Raises RequestError for a place that is not empty, CheckpointError for a key that is not
    theirs, a file that is cut or renamed, and when the disk refuses; then nothing is left.
    """
    found = _files(folder)
    total, done = sum(file.stat().st_size for file in found), 0
    with making(to) as made, os.fdopen(open_regular(key), "rb") as pieces:
        if not os.fstat(pieces.fileno()).st_size:
            raise CheckpointError("is empty", file=key, remedy="Name the consolidated.00.pth of LLaMA")
        for file, name in found.items():
            _decrypt(file, pieces, made / name, name)
            done += file.stat().st_size
            if progress is not None:
                progress(done, total)
    return [to / name for name in found.values()]


def _files(folder: Path) -> dict[Path, str]:
    """Return the files of a folder, the smallest first, and the names of what is in them."""
    hits = (
        [hit for each in folder.iterdir() if (hit := _NAME.fullmatch(each.name))] if folder.is_dir() else []
    )
    if not hits:
        raise CheckpointError(
            "holds no file named NAME.SHA256.enc", file=folder, remedy="Name the folder that was downloaded"
        )
    found = {resolve(folder, hit.string): hit["name"] for hit in hits}
    for name in found.values():
        resolve(folder, name)
    if len(set(found.values())) < len(found):
        raise CheckpointError("holds two versions of a file", file=folder, remedy="Download it again")
    return dict(sorted(found.items(), key=lambda item: item[0].stat().st_size))


def _decrypt(file: Path, key: BinaryIO, to: Path, name: str) -> None:
    told, digest = file.name[len(name) + 1 : -len(".enc")], hashlib.sha256()
    with os.fdopen(open_regular(file), "rb") as cipher, to.open("xb") as plain:
        head = cipher.read(_DIGEST)
        if head.hex() != told:
            raise _refused(
                file, "begins with another SHA-256 than it is named for: it is cut, or was renamed"
            )
        key.seek(0)
        while piece := cipher.read(_PIECE):
            if not (other := key.read(_PIECE)):
                key.seek(0)
                other = key.read(_PIECE)
            repeated = np.resize(np.frombuffer(other, np.uint8), len(piece))
            written = (np.frombuffer(piece, np.uint8) ^ repeated).tobytes()
            digest.update(written)
            plain.write(written)
    if digest.hexdigest() != told:
        raise _refused(file, f"does not give {name} with this key: its SHA-256 is another")


def _refused(file: Path, reason: str) -> CheckpointError:
    remedy = (
        "The key is consolidated.00.pth as Meta released it, of the LLaMA of this size; or download the file "
        "again"
    )
    return CheckpointError(reason, file=file, remedy=remedy)
