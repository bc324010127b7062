"""Linear layers packed by bitsandbytes: 4 bits in blocks (arXiv 2305.14314), 8 bits by row (2208.07339).

Fields and names: bitsandbytes, functional.py (QuantState) and nn/modules.py, as transformers saves them.
Products are with the dequantised weights; LLM.int8 also rounds activations, which is not done here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from ..config import Config
from ..errors import CheckpointError
from ..files import Entry
from ..files.strict_json import InvalidJSONError, parse
from .striped import STRIPE, Striped

__all__ = ["BitsAndBytes4", "BitsAndBytes8", "DoubleFourBitLinear", "EightBitLinear", "FourBitLinear"]

_REMEDY = "Download the file again, or quantise the model again with today's bitsandbytes"
_STATE_BYTES = 4096


class FourBitLinear(Striped):
    """x @ W.T + bias, where W[o, i] = quant_map[q[o, i]] * absmax[block of o * in + i].

    Holds the published tensors: weight uint8 (out * in / 2, 1), row after row, the first of a pair in the
    high half; quant_map float32 (16), the levels of NF4 or FP4; absmax float32, one a block; quant_state, the
    JSON that says so. Blocks run over the whole matrix, and may end within a row: absmax here has one for
    each part of a block that a row is made of (out * in / part), so that rows can be cut anywhere.
    """

    output_axes: ClassVar[Mapping[str, int | None]] = {
        "weight": 0,
        "absmax": 0,
        "nested_absmax": 0,
        "quant_map": None,
        "nested_quant_map": None,
        "quant_state": None,
    }

    weight: Tensor
    absmax: Tensor
    quant_map: Tensor
    quant_state: Tensor

    def __init__(
        self, in_features: int, out_features: int, *, block: int, state_bytes: int = 0, bias: bool = False
    ) -> None:
        """Make room for a layer. block: weights that share an absmax. in_features: an even number."""
        super().__init__(in_features, out_features, bits=4, bias=bias)
        self.part = math.gcd(block, in_features)
        self.repeats = {"absmax": block // self.part}
        parts = out_features * in_features // self.part
        self.register_buffer("weight", torch.zeros(out_features * in_features // 2, 1, dtype=torch.uint8))
        self.register_buffer("absmax", torch.zeros(parts))
        self.register_buffer("quant_map", torch.zeros(16))
        self.register_buffer("quant_state", torch.zeros(state_bytes, dtype=torch.uint8))

    def stripes(self) -> Iterator[Tensor]:
        """Yield W some output channels at a time."""
        packed = self.weight.view(self.out_features, -1).split(STRIPE)
        for pairs, scales in zip(
            packed, self.scales().view(self.out_features, -1).split(STRIPE), strict=True
        ):
            fields = torch.stack((pairs >> 4, pairs & 15), -1).flatten(1)
            levels = self.quant_map[fields.int()].unflatten(1, (-1, self.part))
            yield (levels * scales[..., None]).flatten(1)

    def scales(self) -> Tensor:
        """Return the absmax of each part of a row, float32."""
        return self.absmax


class DoubleFourBitLinear(FourBitLinear):
    """FourBitLinear whose absmax is packed too, in 8 bits.

    absmax = nested_quant_map[a] * nested_absmax[block of a] + offset, a uint8; nested_quant_map float32
    (256).
    """

    nested_absmax: Tensor
    nested_quant_map: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        block: int,
        nested_block: int,
        offset: float,
        state_bytes: int = 0,
        bias: bool = False,
    ) -> None:
        """Make room for a layer. nested_block: absmax that share a nested_absmax."""
        super().__init__(in_features, out_features, block=block, state_bytes=state_bytes, bias=bias)
        a_row = in_features // self.part
        # In parts of blocks, each as often as the file's.
        nested, self.offset = nested_block * self.repeats["absmax"], offset
        self.nested_part = math.gcd(nested, a_row)
        self.repeats = {**self.repeats, "nested_absmax": nested // self.nested_part}
        self.register_buffer("absmax", torch.zeros(out_features * a_row, dtype=torch.uint8))
        self.register_buffer("nested_absmax", torch.zeros(out_features * a_row // self.nested_part))
        self.register_buffer("nested_quant_map", torch.zeros(256))

    def scales(self) -> Tensor:
        """Return the absmax of each part of a row, float32."""
        levels = self.nested_quant_map[self.absmax.int()].view(-1, self.nested_part)
        return (levels * self.nested_absmax[:, None]).flatten() + self.offset


class EightBitLinear(Striped):
    """x @ W.T + bias, where W[o, i] = q[o, i] * SCB[o] / 127.

    Holds the published tensors as they are: weight int8 (out, in); SCB float32 (out), the largest of a row;
    weight_format uint8 (), 0, which early files lack.
    """

    output_axes: ClassVar[Mapping[str, int | None]] = {"weight_format": None}

    weight: Tensor
    SCB: Tensor
    weight_format: Tensor | None

    def __init__(self, in_features: int, out_features: int, *, bias: bool = False) -> None:
        super().__init__(in_features, out_features, bits=8, bias=bias)
        self.register_buffer("weight", torch.zeros(out_features, in_features, dtype=torch.int8))
        self.register_buffer("SCB", torch.zeros(out_features))
        self.register_buffer("weight_format", torch.zeros((), dtype=torch.uint8))

    def stripes(self) -> Iterator[Tensor]:
        """Yield W some output channels at a time."""
        for q, most in zip(self.weight.split(STRIPE), self.SCB.split(STRIPE), strict=True):
            yield q * most[:, None] * (1 / 127)  # as bitsandbytes' kernels: the factor rounded once


# What says how a model is quantised while it is loaded, or run, by that library.
_INERT = """
    load_in_4bit load_in_8bit bnb_4bit_compute_dtype bnb_4bit_quant_type bnb_4bit_use_double_quant
    llm_int8_enable_fp32_cpu_offload llm_int8_skip_modules llm_int8_threshold
""".split()


def _read(c: Config) -> None:
    for key in _INERT:
        c.get(key, None)
    c.must("llm_int8_has_fp16_weight", False)
    c.must("bnb_4bit_quant_storage", "uint8")


@dataclass(frozen=True)
class BitsAndBytes4:
    """4 bits a weight: each layer's own quant_state says how."""

    double: bool

    signs: ClassVar[tuple[str, ...]] = ("weight.absmax", "weight.quant_map")
    leaves: ClassVar[Mapping[str, str]] = {
        "weight": "weight",
        "bias": "bias",
        **{f"weight.{leaf}": leaf for leaf in ("absmax", "quant_map", "nested_absmax", "nested_quant_map")},
        **{f"weight.quant_state.bitsandbytes__{kind}": "quant_state" for kind in ("nf4", "fp4")},
    }

    @classmethod
    def read(cls, c: Config) -> Self:
        """Read a quantization_config. Raises ConfigError for weights that are not stored byte by byte."""
        double = c.flag("bnb_4bit_use_double_quant", False)
        _read(c)
        return cls(double)

    def layer(self, linear: nn.Linear, held: Mapping[str, Entry]) -> Striped:
        """Return room for what replaces a linear layer.

        held: the layer's tensors in the file, by our names; none where only a config is there. Raises
        CheckpointError for a quant_state that is missing, damaged, or of another layer.
        """
        bias, sizes = linear.bias is not None, (linear.in_features, linear.out_features)
        state = _State.read(held) if held else _State(64, sizes[0], 256 if self.double else None)
        if state.inputs != sizes[0] or sizes[0] % 2:
            raise _unfit(held, f"is of {state.inputs} input channels, and the config makes them {sizes[0]}")
        with torch.device(linear.weight.device):
            if state.nested_block is None:
                return FourBitLinear(*sizes, block=state.block, state_bytes=state.nbytes, bias=bias)
            return DoubleFourBitLinear(
                *sizes,
                block=state.block,
                nested_block=state.nested_block,
                offset=state.offset,
                state_bytes=state.nbytes,
                bias=bias,
            )


@dataclass(frozen=True)
class BitsAndBytes8:
    """8 bits a weight."""

    signs: ClassVar[tuple[str, ...]] = ("SCB", "weight_format")
    leaves: ClassVar[Mapping[str, str]] = {leaf: leaf for leaf in ("weight", "bias", "SCB", "weight_format")}

    @classmethod
    def read(cls, c: Config) -> Self:
        """Read a quantization_config."""
        _read(c)
        return cls()

    def layer(self, linear: nn.Linear, held: Mapping[str, Entry]) -> Striped:
        """Return room for what replaces a linear layer.

        held: the layer's tensors in the file. Raises CheckpointError for weights in the order of a GPU's
        tiles.
        """
        with torch.device(linear.weight.device):
            made = EightBitLinear(linear.in_features, linear.out_features, bias=linear.bias is not None)
        said = held.get("weight_format")
        if held and said is None:
            made.weight_format = None
        if said is not None and (said.dtype != "U8" or said.shape != () or said.read() != 0):
            raise CheckpointError(
                "is no 0: the weights are in the order of one GPU's tiles, which is not read here",
                file=said.file,
                tensor=said.name,
                offset=said.offset,
                remedy=_REMEDY,
            )
        return made


@dataclass(frozen=True)
class _State:
    """What a quant_state says: weights in a block, input channels, absmax in a block and their offset."""

    block: int
    inputs: int
    nested_block: int | None = None
    offset: float = 0.0
    nbytes: int = 0

    @classmethod
    def read(cls, held: Mapping[str, Entry]) -> Self:
        """Read that of a layer. Raises CheckpointError."""
        entry = held.get("quant_state")
        if entry is None:
            raise _unfit(held, "has no quant_state, which says how it was packed")
        if entry.dtype != "U8" or len(entry.shape) != 1 or entry.nbytes > _STATE_BYTES:
            raise _unfit(held, "is no short text in bytes")
        try:
            said = parse(entry.read().numpy().tobytes())
            c = Config(said if isinstance(said, dict) else {}, "quant_state")
            c.must("quant_type", "nf4", "fp4")
            c.text("dtype")  # what bitsandbytes rounds W to; here it is float32
            shape, nested = c.values("shape", int), c.optional("nested_blocksize")
            if shape is None or len(shape) != 2:
                raise ValueError("its shape is not that of a matrix")
            offset = c.get("nested_offset") if nested else 0.0
            if type(offset) not in (int, float):
                raise ValueError("its nested_offset is no number")
            if nested:
                c.must("nested_dtype", "float32")
            block = c.count("blocksize")
            c.finish()
        except (InvalidJSONError, ValueError) as error:
            raise _unfit(held, f"is no quant_state that is read here: {error}") from error
        return cls(block, shape[1], nested, float(offset), entry.nbytes)  # type: ignore[arg-type]  # a number


def _unfit(held: Mapping[str, Entry], reason: str) -> CheckpointError:
    entry = held.get("quant_state") or next(iter(held.values()))
    return CheckpointError(reason, file=entry.file, tensor=entry.name, offset=entry.offset, remedy=_REMEDY)
