"""Linear layers packed by AWQ (arXiv 2306.00978), in AutoAWQ's layout for matrix products ("gemm")."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from ..config import Config
from ..errors import ConfigError
from ..files import Entry
from .gptq import take_types
from .striped import STRIPE, Striped

__all__ = ["AWQ", "AWQLinear"]

# In a word, the lowest four bits first, lie its output channels 0, 2, 4, 6, 1, 3, 5, 7.
_BEGIN = (0, 16, 4, 20, 8, 24, 12, 28)
_FIELDS = 8


def _unpack(words: Tensor) -> Tensor:
    """Return the fields of four bits in int32 words (N, W), in the order of their channels: (N, 8 W)."""
    begin = torch.tensor(_BEGIN, dtype=torch.int32, device=words.device)
    return ((words[..., None] >> begin) & 15).flatten(-2)


class AWQLinear(Striped):
    """x @ W.T + bias, where W[o, i] = scales[g, o] * (q[i, o] - zero[g, o]) and g = i // group.

    Holds the published tensors as they are: qweight int32 (in, out / 8) and qzeros int32 (groups, out / 8),
    eight fields of four bits a word, interleaved; scales float16 (groups, out).
    """

    output_axes: ClassVar[Mapping[str, int | None]] = {"qweight": 1, "qzeros": 1, "scales": 1}

    qweight: Tensor
    qzeros: Tensor
    scales: Tensor

    def __init__(self, in_features: int, out_features: int, *, group: int, bias: bool = False) -> None:
        """Make room for a layer. group: input channels that share a scale and a zero.

        Raises ConfigError for output channels that do not fill words, and inputs that do not fill groups.
        """
        super().__init__(in_features, out_features, bits=4, bias=bias)
        if out_features % _FIELDS or in_features % group:
            raise ConfigError(
                f"a layer of {in_features} to {out_features} channels does not fill whole groups of {group} "
                f"and whole words of {_FIELDS}"
            )
        self.group, groups = group, in_features // group
        self.register_buffer("qweight", torch.zeros(in_features, out_features // _FIELDS, dtype=torch.int32))
        self.register_buffer("qzeros", torch.zeros(groups, out_features // _FIELDS, dtype=torch.int32))
        self.register_buffer("scales", torch.zeros(groups, out_features, dtype=torch.float16))

    def stripes(self) -> Iterator[Tensor]:
        """Yield W some output channels at a time."""
        words = (tensor.split(STRIPE // _FIELDS, 1) for tensor in (self.qweight, self.qzeros))
        for weight, zero, scale in zip(*words, self.scales.split(STRIPE, 1), strict=True):
            q = _unpack(weight).unflatten(0, (-1, self.group))  # (groups, group, channels)
            steps = (q - _unpack(zero)[:, None]).float()
            yield (steps * scale.float()[:, None]).flatten(0, 1).mT


@dataclass(frozen=True)
class AWQ:
    """How a repository says that it was packed. group: -1 for all input channels."""

    group: int

    signs: ClassVar[tuple[str, ...]] = ("qweight", "qzeros")
    leaves: ClassVar[Mapping[str, str]] = {leaf: leaf for leaf in (*AWQLinear.output_axes, "bias")}

    @classmethod
    def read(cls, c: Config) -> Self:
        """Read a quantization_config. Raises ConfigError for the layouts of other kernels (gemv, marlin ...).

        Which modules were not converted, the tensors say.
        """
        inert = "backend do_fuse exllama_config fuse_max_seq_len modules_to_fuse modules_to_not_convert"
        for key in inert.split():
            c.get(key, None)
        c.must("bits", 4)
        c.must("zero_point", True)
        c.must("version", "gemm", "GEMM")
        return cls(-1 if c.get("group_size", None) == -1 else c.count("group_size", 128))

    def layer(self, linear: nn.Linear, held: Mapping[str, Entry]) -> Striped:
        """Return room for what replaces a linear layer. held, raises: as GPTQ.layer."""
        group, sizes = self.group, (linear.in_features, linear.out_features)
        with torch.device(linear.weight.device):
            made = AWQLinear(*sizes, group=sizes[0] if group == -1 else group, bias=linear.bias is not None)
        take_types(made, held)
        return made
