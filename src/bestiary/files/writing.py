"""What writers of weight files share: tensors made when their turn comes, and files whole or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..formats import FORMATS
from .source import DTYPES

# Bytes written, bytes in all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Planned:
    """A tensor to be written: its place is known before it is made, and it is let go once it is written.

    shape: outermost dimension first. dtype: as an Entry has it: "F32", "BF16", "Q4_K". make: gives the tensor
    in that type, a packed format as uint8 (..., bytes of a row).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    make: Callable[[], Tensor] = field(repr=False, compare=False)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in a file. Raises CheckpointError for rows that do not fill whole blocks."""
        if self.dtype in DTYPES:
            return math.prod(self.shape) * DTYPES[self.dtype].itemsize
        return math.prod(self.shape[:-1]) * FORMATS[self.dtype].row_bytes(self.shape[-1])


@contextlib.contextmanager
def replacing(path: Path, nbytes: int) -> Iterator[BinaryIO]:
    """Give a file to write to, which takes the name once it is whole and on the disk.

    It lies beside it until then; on failure it is removed, and what was there before stays. Raises
    CheckpointError when the disk refuses, or has less room than nbytes, before a byte is written.
    """
    try:
        check_room(path, nbytes)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(path.parent)
    except OSError as error:
        remedy = "Make room or choose another folder; what was there before is unchanged"
        raise CheckpointError(f"cannot be written: {error.strerror}", file=path, remedy=remedy) from error


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Write a JSON file, whole or not at all. Raises CheckpointError when the disk refuses."""
    raw = (json.dumps(dict(value), indent=2, ensure_ascii=False) + "\n").encode()
    with replacing(path, len(raw)) as file:
        file.write(raw)


def check_room(path: Path, nbytes: int) -> None:
    """Raise CheckpointError where the disk has less room than nbytes for a file or folder at a path."""
    disk = os.statvfs(path.parent)
    free = disk.f_bavail * disk.f_frsize
    if free < nbytes:
        raise CheckpointError(
            f"takes {nbytes / 1e9:.1f} GB, and the disk has {free / 1e9:.1f} GB free",
            file=path,
            remedy="Make room or choose another folder; what was there before is unchanged",
        )


def write_tensor(file: BinaryIO, tensor: Tensor) -> int:
    """Write a tensor's bytes, row by row, and return how many they are."""
    whole = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    nbytes = whole.numel() * whole.dtype.itemsize
    if nbytes:
        # Not every type has a numpy twin; every tensor has an address. `whole` lives until the write is done.
        file.write((ctypes.c_ubyte * nbytes).from_address(whole.data_ptr()))
    return nbytes


def make(planned: Planned) -> Tensor:
    """Return a planned tensor. Raises CheckpointError for one that is not as it was planned."""
    tensor = planned.make()
    dtype = DTYPES.get(planned.dtype, torch.uint8)
    if tensor.dtype != dtype or tensor.numel() * dtype.itemsize != planned.nbytes:
        reason = f"is {tensor.dtype} {tuple(tensor.shape)}, planned as {planned.dtype} {planned.shape}"
        raise CheckpointError(reason, tensor=planned.name)
    return tensor


def _sync_folder(folder: Path) -> None:
    """Make the new name durable: without this a power cut can bring the old file back, or none."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
