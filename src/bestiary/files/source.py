"""One file's bytes, memory-mapped, and the tensors that look at them."""

from __future__ import annotations

import math
import mmap
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from ..errors import CheckpointError
from .paths import open_regular

# Names of plain types, as safetensors spells them.
DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {
        "BOOL": torch.bool,
        "U8": torch.uint8,
        "I8": torch.int8,
        "F8_E5M2": torch.float8_e5m2,
        "F8_E4M3": torch.float8_e4m3fn,
        "I16": torch.int16,
        "U16": torch.uint16,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "I32": torch.int32,
        "U32": torch.uint32,
        "F32": torch.float32,
        "I64": torch.int64,
        "U64": torch.uint64,
        "F64": torch.float64,
        "C64": torch.complex64,
    }
)

MOST_DIMS = 16
_CHUNK = 4 << 20
DAMAGED = "Download the file again: it is damaged, or was made to do harm"

# A private writable map counts as memory in full unless it is told not to: without this a file larger than
# the machine's memory cannot be mapped. Python 3.11 has no name for the flag; its value is the same on these
# machines.
_NORESERVE = 0x4000 if platform.system() == "Linux" and platform.machine() in ("x86_64", "aarch64") else 0


class Source:
    """The bytes of one file, to be parsed and to be looked at through tensors.

    The map is private: what is written to a tensor changes this process's memory, never the file. It stays
    for as long as one tensor that looks at it.
    """

    def __init__(self, path: Path, data: memoryview, *, mapped: mmap.mmap | None = None) -> None:
        self.path, self.size = path, len(data)
        self._data: memoryview | None = data
        self._mapped = mapped

    @classmethod
    def open(cls, path: Path) -> Source:
        """Map a file. Raises CheckpointError when it cannot be opened, is not a regular file, or is empty."""
        descriptor = open_regular(path)
        try:
            size = os.fstat(descriptor).st_size
            if size == 0:
                raise CheckpointError("is empty", file=path, remedy=DAMAGED)
            flags, access = mmap.MAP_PRIVATE | _NORESERVE, mmap.PROT_READ | mmap.PROT_WRITE
            mapped = mmap.mmap(descriptor, size, flags=flags, prot=access)
        except OSError as error:
            raise CheckpointError(f"cannot be mapped: {error.strerror}", file=path, remedy=DAMAGED) from error
        finally:
            os.close(descriptor)
        return cls(path, memoryview(mapped), mapped=mapped)

    def close(self) -> None:
        """Let go of the map. Tensors read before keep it; nothing can be read after."""
        self._data = self._mapped = None

    @property
    def data(self) -> memoryview:
        if self._data is None:
            raise CheckpointError(
                "was closed", file=self.path, remedy="Read tensors before closing the checkpoint"
            )
        return self._data

    def error(
        self, reason: str, *, tensor: str | None = None, offset: int | None = None, remedy: str = DAMAGED
    ) -> CheckpointError:
        """Make the refusal of this file, to be raised."""
        return CheckpointError(reason, file=self.path, tensor=tensor, offset=offset, remedy=remedy)

    def tensor(
        self, dtype: torch.dtype, shape: tuple[int, ...], offset: int, stride: tuple[int, ...] | None = None
    ) -> Tensor:
        """Return the elements that begin at byte `offset`, which the caller has checked to lie in the file.

        stride: in elements; row-major when None. A view of the map, except where a view would be wrong:
        elements that lie across their alignment, and booleans, of which any byte but 0 and 1 is undefined
        behaviour. Raises CheckpointError when the file has become shorter since it was opened (reading would
        kill the process).
        """
        data, numel = self.data, math.prod(shape)
        if self._mapped is not None and self._mapped.size() < self.size:
            raise self.error(f"was cut to {self._mapped.size():,} bytes while it was in use")
        if numel == 0:
            return torch.empty(shape, dtype=dtype)
        span = numel
        if stride is not None:
            span = 1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if dtype == torch.bool:
            flat = torch.frombuffer(data, dtype=torch.uint8, count=span, offset=offset).ne(0)
        elif offset % dtype.itemsize:
            flat = self._copy(offset, span * dtype.itemsize).view(dtype)
        else:
            flat = torch.frombuffer(data, dtype=dtype, count=span, offset=offset)
        return flat.view(shape) if stride is None else flat.as_strided(shape, stride)

    def _copy(self, offset: int, nbytes: int) -> Tensor:
        """Return bytes in memory of their own, giving back the pages that they were read through on the way.

        Nobody has written to those pages: they were never handed out as a view.
        """
        copy = torch.empty(nbytes, dtype=torch.uint8)
        for at in range(0, nbytes, _CHUNK):
            count = min(_CHUNK, nbytes - at)
            copy[at : at + count] = torch.frombuffer(
                self.data, dtype=torch.uint8, count=count, offset=offset + at
            )
            first = -(-(offset + at) // mmap.PAGESIZE) * mmap.PAGESIZE
            if self._mapped is not None and (whole := offset + at + count - first) > 0:
                self._mapped.madvise(mmap.MADV_DONTNEED, first, whole // mmap.PAGESIZE * mmap.PAGESIZE)
        return copy


def element_count(shape: tuple[int, ...]) -> int | None:
    """Return the product of a shape, or None for what torch cannot hold: many dimensions, or past 63 bits."""
    # Zeros are left out: (0, 2**62, 2**62) has no elements, and strides that overflow.
    if len(shape) > MOST_DIMS or math.prod(n for n in shape if n) >= 2**60:
        return None
    return math.prod(shape)
