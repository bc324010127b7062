"""The formats a packed matrix can have in a file and in memory: the sizes of blocks, to floats and from them.

`FORMATS` maps a name, spelt as in GGUF, to its `Format`. F32 is no entry: plain float32 needs no decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from torch import Tensor

from ..errors import CheckpointError
from . import ggml, ggml_encode

__all__ = ["FORMATS", "Format", "get"]


@dataclass(frozen=True)
class Format:
    """How the elements of a row are packed.

    `block` elements take `nbytes` bytes. `decode` is the reference: uint8 of shape (..., blocks * nbytes) to
    float32 of shape (..., blocks * block), exact to the last bit. `encode` is the other direction, rounded as
    ggml rounds; None where it is not written here.
    """

    name: str
    block: int
    nbytes: int
    decode: Callable[[Tensor], Tensor] = field(repr=False, compare=False)
    encode: Callable[[Tensor], Tensor] | None = field(default=None, repr=False, compare=False)

    def row_bytes(self, columns: int) -> int:
        """Bytes in a row of `columns` elements. CheckpointError when they do not fill whole blocks."""
        if columns < 0 or columns % self.block:
            raise CheckpointError(
                f"{columns} columns are no multiple of the {self.block} elements of a {self.name} block",
                remedy="Keep this matrix in F16 or another format of smaller blocks",
            )
        return columns // self.block * self.nbytes

    def columns(self, row_bytes: int) -> int:
        """Elements in a row of `row_bytes` bytes. CheckpointError when these are not whole blocks."""
        if row_bytes < 0 or row_bytes % self.nbytes:
            raise CheckpointError(
                f"a row of {row_bytes} bytes is no multiple of the {self.nbytes} of a {self.name} block",
                remedy="The tensor was cut or has another format",
            )
        return row_bytes // self.nbytes * self.block


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        fmt.name: fmt
        for fmt in (
            Format("F16", 1, 2, ggml.decode_f16, ggml_encode.encode_f16),
            Format("BF16", 1, 2, ggml.decode_bf16, ggml_encode.encode_bf16),
            Format("Q4_0", 32, 18, ggml.decode_q4_0, ggml_encode.encode_q4_0),
            Format("Q4_1", 32, 20, ggml.decode_q4_1),
            Format("Q5_0", 32, 22, ggml.decode_q5_0, ggml_encode.encode_q5_0),
            Format("Q5_1", 32, 24, ggml.decode_q5_1),
            Format("Q8_0", 32, 34, ggml.decode_q8_0, ggml_encode.encode_q8_0),
            Format("Q2_K", 256, 84, ggml.decode_q2_k),
            Format("Q3_K", 256, 110, ggml.decode_q3_k),
            Format("Q4_K", 256, 144, ggml.decode_q4_k, ggml_encode.encode_q4_k),
            Format("Q5_K", 256, 176, ggml.decode_q5_k),
            Format("Q6_K", 256, 210, ggml.decode_q6_k, ggml_encode.encode_q6_k),
            Format("IQ4_NL", 32, 18, ggml.decode_iq4_nl),
            Format("IQ4_XS", 256, 136, ggml.decode_iq4_xs),
        )
    }
)


def get(name: str) -> Format:
    """The format of this name. CheckpointError naming the known ones when there is none."""
    try:
        return FORMATS[name]
    except KeyError:
        raise CheckpointError(
            f"unknown weight format {name[:40]!r}", remedy=f"Known formats are F32 {' '.join(FORMATS)}"
        ) from None
