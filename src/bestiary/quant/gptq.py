"""Linear layers packed by GPTQ (arXiv 2210.17323), in the layout of GPTQ-for-LLaMa and AutoGPTQ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from ..config import Config
from ..errors import CheckpointError, ConfigError
from ..files import Entry
from .striped import STRIPE, Striped

__all__ = ["GPTQ", "GPTQLinear", "unpack"]


def unpack(words: Tensor, bits: int) -> Tensor:
    """Return the fields of `bits` bits that fill int32 words (W, N), from the lowest: (32 W / bits, N).

    Those of three bits may begin in one word and end in the next.
    """
    mask = (1 << bits) - 1
    if 32 % bits == 0:
        begin = torch.arange(0, 32, bits, dtype=torch.int32, device=words.device)[:, None]
        return ((words[:, None] >> begin) & mask).flatten(0, 1)
    begin = torch.arange(0, 32 * len(words), bits, device=words.device)
    words = words.long() & 0xFFFFFFFF  # without a sign
    first, last, shift = begin // 32, (begin + bits - 1) // 32, (begin % 32)[:, None]
    return (words[first] >> shift | words[last] << 32 - shift) & mask


class GPTQLinear(Striped):
    """x @ W.T + bias, where W[o, i] = scales[g, o] * (q[i, o] - zero[g, o]) and g = g_idx[i].

    Holds the published tensors as they are: qweight int32 (in * bits / 32, out), fields q along the input
    channels; qzeros int32 (groups, out * bits / 32), fields `zero - offset` along the output channels; scales
    float16 (groups, out); g_idx int32 (in): the group of each input channel, in any order ("act-order"), or
    None: one group after another.
    """

    # Where each published tensor has its output channels; None: all of them share it.
    output_axes: ClassVar[Mapping[str, int | None]] = {"qweight": 1, "qzeros": 1, "scales": 1, "g_idx": None}

    qweight: Tensor
    qzeros: Tensor
    scales: Tensor
    g_idx: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bits: int,
        group: int | None = None,
        bias: bool = False,
        offset: int = 1,
    ) -> None:
        """Make room for a layer of `bits` bits (2, 3, 4 or 8).

        group: input channels that share a scale and a zero; None: all. offset: what a stored zero lacks, 1
        but in files of the format "gptq_v2". Raises ConfigError for sizes that do not fill words of 32 bits.
        """
        super().__init__(in_features, out_features, bits=bits, bias=bias)
        if in_features * bits % 32 or out_features * bits % 32:
            raise ConfigError(
                f"a layer of {in_features} to {out_features} channels does not fill whole words of 32 bits "
                f"with {bits} bits a weight"
            )
        self.offset, self.group = offset, group or in_features
        groups, words = -(-in_features // self.group), partial(torch.zeros, dtype=torch.int32)
        self.register_buffer("qweight", words(in_features * bits // 32, out_features))
        self.register_buffer("qzeros", words(groups, out_features * bits // 32))
        self.register_buffer("scales", torch.zeros(groups, out_features, dtype=torch.float16))
        self.register_buffer("g_idx", torch.arange(in_features, dtype=torch.int32) // self.group)

    @classmethod
    def of(cls, linear: nn.Module, *, bits: int, group: int | None, offset: int = 1) -> Self:
        """Return room for what replaces a linear layer. Raises as __init__ does."""
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"{type(linear).__name__} is no nn.Linear")
        sizes = linear.in_features, linear.out_features
        with torch.device(linear.weight.device):
            return cls(*sizes, bits=bits, group=group, bias=linear.bias is not None, offset=offset)

    def stripes(self) -> Iterator[Tensor]:
        """Yield W some output channels at a time."""
        zeros = (unpack(self.qzeros.mT, self.bits).mT + self.offset).float()  # (groups, out)
        group = self.g_idx
        if group is None:
            group = torch.arange(self.in_features, device=self.qweight.device) // self.group
        pieces = (tensor.split(STRIPE, 1) for tensor in (self.qweight, zeros, self.scales.float()))
        for words, zero, scale in zip(*pieces, strict=True):
            steps = unpack(words, self.bits) - zero[group]  # whole numbers, exact in float32
            yield (steps * scale[group]).mT


# What says how the packing was computed, and how other programs run it: nothing of what the file holds.
_INERT = """
    damp_percent damp_auto_increment static_groups sym true_sequential model_name_or_path model_file_base_name
    dataset tokenizer use_cuda_fp16 model_seqlen block_name_to_quantize module_name_preceding_first_block
    batch_size pad_token_id use_exllama disable_exllama exllama_config max_input_length cache_block_outputs
    modules_in_block_to_quantize backend meta lm_head mse quantizer version
""".split()


@dataclass(frozen=True)
class GPTQ:
    """How a repository says that it was packed.

    bits, group: None where it says nothing, and the tensors' shapes tell. group: -1 for all input channels.
    ordered: whether groups are of channels of like importance, which g_idx alone knows. offset: as in
    GPTQLinear.
    """

    bits: int | None
    group: int | None
    ordered: bool
    offset: int

    signs: ClassVar[tuple[str, ...]] = ("qweight", "qzeros")
    leaves: ClassVar[Mapping[str, str]] = {leaf: leaf for leaf in (*GPTQLinear.output_axes, "bias")}

    @classmethod
    def read(cls, c: Config) -> Self:
        """Read a quantization_config. Raises ConfigError for a layout of other programs' kernels."""
        for key in _INERT:
            c.get(key, None)
        c.must("pack_dtype", "int32")
        c.must("dynamic", None, {})  # bits of single layers
        c.must("is_marlin_format", False)
        c.must("checkpoint_format", "gptq", "gptq_v2")
        c.must("bits", None, 2, 3, 4, 8)
        group = -1 if c.get("group_size", None) == -1 else c.optional("group_size")
        offset = 0 if c.get("checkpoint_format", "gptq") == "gptq_v2" else 1
        return cls(c.optional("bits"), group, c.flag("desc_act", False), offset)

    def layer(self, linear: nn.Linear, held: Mapping[str, Entry]) -> GPTQLinear:
        """Return room for what replaces a linear layer.

        held: the layer's tensors in the file, by their own names; none where only a config is there. Raises
        ConfigError and CheckpointError for sizes that do not fit each other.
        """
        inputs = linear.in_features
        group = inputs if self.group == -1 else self.group or _group(inputs, held)
        layer = GPTQLinear.of(linear, bits=self.bits or _bits(inputs, held), group=group, offset=self.offset)
        if held and "g_idx" not in held:
            if self.ordered and len(layer.scales) > 1:
                raise _unfit(held, "its channels were ordered (desc_act), and no g_idx says how")
            layer.g_idx = None
        elif held:
            _check_groups(held)
        take_types(layer, held)
        return layer


def take_types(layer: Striped, held: Mapping[str, Entry]) -> None:
    """Give a layer scales of the file's own type, and a bias where the file has one."""
    if "scales" in held and held["scales"].dtype in ("F32", "BF16"):
        layer.scales = layer.scales.to(torch.float32 if held["scales"].dtype == "F32" else torch.bfloat16)
    if "bias" in held and layer.bias is None:  # zeros that AutoGPTQ wrote for every layer
        layer.bias = nn.Parameter(torch.zeros(layer.out_features))  # about to be filled


def _bits(inputs: int, held: Mapping[str, Entry]) -> int:
    """Return how many bits fill the words of a file that says nothing; 4 where there is no file."""
    if not held:
        return 4
    shape = held["qweight"].shape if "qweight" in held else ()
    words = shape[0] if len(shape) == 2 else 0
    bits = next((bits for bits in (2, 3, 4, 8) if words * 32 == inputs * bits), None)
    if bits is None:
        raise _unfit(held, f"no 2, 3, 4 or 8 bits for each of {inputs} input channels fill {words} words")
    return bits


def _group(inputs: int, held: Mapping[str, Entry]) -> int:
    """Return how many channels share a scale in a file that says nothing."""
    shape = held["scales"].shape if "scales" in held else ()
    groups = shape[0] if len(shape) == 2 else 1
    if not 0 < groups <= inputs:
        raise _unfit(held, f"{inputs} input channels have {groups} groups of scales")
    if inputs % groups and "g_idx" not in held:
        raise _unfit(
            held, f"{inputs} input channels do not divide into {groups} groups, and nothing says how"
        )
    return -(-inputs // groups)


def _check_groups(held: Mapping[str, Entry]) -> None:
    """Refuse channels of groups that the file's scales are not of."""
    entry, scales = held["g_idx"], held.get("scales")
    if entry.dtype != "I32" or scales is None or not scales.shape or not entry.nbytes:
        return  # which is refused where shapes and types are
    low, high = (int(number) for number in torch.aminmax(entry.read()))
    if low < 0 or high >= scales.shape[0]:
        reason = f"names groups {low} to {high}, and there are {scales.shape[0]}"
        raise CheckpointError(reason, file=entry.file, tensor=entry.name, offset=entry.offset, remedy=REMEDY)


def _unfit(held: Mapping[str, Entry], reason: str) -> CheckpointError:
    entry = held.get("qweight") or next(iter(held.values()))
    return CheckpointError(reason, file=entry.file, tensor=entry.name, offset=entry.offset, remedy=REMEDY)


REMEDY = "Download all files of the repository again, its quantize_config.json with them"
