"""What every weight file amounts to: named tensors, each with a place in a file, read when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal

from torch import Tensor

from .finite import is_finite
from .source import Source

Kind = Literal["safetensors", "bin", "gguf", "jax", "sat", "megatron", "easylm"]


@dataclass(frozen=True)
class Entry:
    """One tensor of a checkpoint.

    shape: outermost dimension first, as torch has it. dtype: "F32", "BF16", "I64" ..., or the name of a
    packed format of `bestiary.formats`. file, offset, nbytes: where its bytes lie.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    file: Path
    offset: int
    nbytes: int
    load: Callable[[], Tensor] = field(repr=False, compare=False)

    def read(self) -> Tensor:
        """Return the tensor: a view of the file's private memory map, so nothing is copied.

        A packed format comes as uint8 (..., bytes of a row). What is written to the tensor stays in this
        process. Raises CheckpointError when the checkpoint was closed or the file was cut short meanwhile.
        """
        return self.load()


class Checkpoint:
    """A model's weights, whatever file or files hold them.

    entries: name -> Entry. metadata: a GGUF file's keys, a safetensors file's `__metadata__`, the plain
    values beside the tensors of a .bin file. The maps stay open as long as a tensor read from them.
    """

    def __init__(
        self,
        path: Path,
        kind: Kind,
        entries: Mapping[str, Entry],
        metadata: Mapping[str, object],
        sources: Iterable[Source],
    ) -> None:
        self.path, self.kind, self.entries, self.metadata = path, kind, entries, metadata
        self._sources = tuple(sources)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(entry.nbytes for entry in self.entries.values())

    def check_finite(self) -> list[str]:
        """Return the names of the tensors with a NaN or an infinity: of a packed format, among its scales."""
        return [name for name, entry in self.entries.items() if not is_finite(entry.read(), entry.dtype)]

    def close(self) -> None:
        """Let go of the files. Tensors read before stay valid."""
        for source in self._sources:
            source.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"Checkpoint({str(self.path)!r}, {self.kind}, {len(self.entries)} tensors, {self.nbytes:,} bytes)"
        )
