"""Linear layers in the published packed forms, written field by field from what their authors describe.

Each returns a layer's tensors, by the end of their names, and the float weight (out, in) that they stand for.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import torch
from torch import Tensor

Packer = Callable[[Tensor], tuple[dict[str, Tensor], Tensor]]

# The levels of 4-bit NormalFloat (arXiv 2305.14314, appendix E).
NF4 = torch.tensor([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
])  # fmt: skip


def words(fields: Tensor, bits: int) -> Tensor:
    """Write fields (N, columns) end to end, each column one large number; return its words, int32."""
    out = []
    for column in fields.T.tolist():
        number = sum(field << bits * i for i, field in enumerate(column))
        out.append([number >> 32 * i & 0xFFFFFFFF for i in range(len(column) * bits // 32)])
    return torch.tensor(out, dtype=torch.int64).to(torch.int32).T.contiguous()


def _stepped(weight: Tensor, bits: int, group: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return q (in, out), zero and scales (groups, out) of weight (out, in)."""
    grouped = weight.T.unflatten(0, (-1, group or weight.shape[1]))
    low, high = grouped.amin(1), grouped.amax(1)
    scales = ((high - low) / (2**bits - 1)).half()
    zero = (-low / scales).round().clamp(1, 2**bits - 1)
    q = (grouped / scales[:, None] + zero[:, None]).round().clamp(0, 2**bits - 1)
    return q.flatten(0, 1).long(), zero.long(), scales


def gptq(
    bits: int = 4, group: int | None = 16, *, v2: bool = False, ordered: bool = False, counted: bool = False
) -> Packer:
    """AutoGPTQ's: zeros less one, but in v2. ordered: channels in any order. counted: no g_idx."""

    def pack(weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        order = torch.randperm(weight.shape[1]) if ordered else torch.arange(weight.shape[1])
        q, zero, scales = _stepped(weight[:, order], bits, group)
        g_idx = torch.empty(len(order), dtype=torch.int32)
        g_idx[order] = torch.arange(len(order), dtype=torch.int32) // (group or len(order))
        q = q[order.argsort()]
        stored = zero if v2 else zero - 1
        tensors = {
            "qweight": words(q, bits),
            "qzeros": words(stored.T, bits).T.contiguous(),
            "scales": scales,
        }
        wide = scales.float()[g_idx] * (q - zero[g_idx])
        return tensors if counted else tensors | {"g_idx": g_idx}, wide.T.contiguous()

    return pack


def awq(group: int = 16) -> Packer:
    """AutoAWQ's for matrix products: fields along the outputs, interleaved."""

    def pack(weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        q, zero, scales = _stepped(weight, 4, group)
        wide = scales.float().repeat_interleave(group, 0) * (q - zero.repeat_interleave(group, 0))
        tensors = {"qweight": _interleaved(q), "qzeros": _interleaved(zero), "scales": scales}
        return tensors, wide.T.contiguous()

    return pack


def _interleaved(fields: Tensor) -> Tensor:
    order = torch.arange(fields.shape[1]).view(-1, 8)[:, [0, 2, 4, 6, 1, 3, 5, 7]].flatten()
    return words(fields[:, order].T, 4).T.contiguous()


def nf4(*, double: bool = False) -> Packer:
    """bitsandbytes' 4 bits in blocks of 64; double: with scales of 8 bits in blocks of 256."""

    def pack(weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        n = weight.numel()
        flat = torch.cat((weight.flatten(), torch.zeros(-n % 64))).view(-1, 64)
        absmax, extra = flat.abs().amax(1), dict[str, object]()
        tensors: dict[str, Tensor] = {"weight.absmax": absmax}
        if double:
            absmax, tensors, offset = _eight_bits(absmax)
            extra = {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": offset}
        q = (flat[..., None] / absmax[:, None, None] - NF4).abs().argmin(-1)
        wide = (NF4[q] * absmax[:, None]).flatten()[:n].view(weight.shape)
        pairs = q.flatten()[:n].view(-1, 2)
        state = {
            "quant_type": "nf4",
            "blocksize": 64,
            "dtype": "float16",
            "shape": list(weight.shape),
        } | extra
        tensors["weight"] = (pairs[:, 0] << 4 | pairs[:, 1]).to(torch.uint8)[:, None]
        tensors["weight.quant_map"] = NF4.clone()
        text = json.dumps(state).encode()
        tensors["weight.quant_state.bitsandbytes__nf4"] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        return tensors, wide

    return pack


def _eight_bits(absmax: Tensor) -> tuple[Tensor, dict[str, Tensor], float]:
    """Return absmax rounded to 8 bits, the tensors that hold it, and what it is off by."""
    offset = absmax.mean().item()
    n = len(absmax)
    blocks = torch.cat((absmax - offset, torch.zeros(-n % 256))).view(-1, 256)
    levels, most = torch.linspace(-1, 1, 256) ** 3, blocks.abs().amax(1)
    a = (blocks[..., None] / most[:, None, None] - levels).abs().argmin(-1)
    wide = (levels[a] * most[:, None]).flatten()[:n] + offset
    tensors = {"absmax": a.flatten()[:n].to(torch.uint8), "nested_absmax": most, "nested_quant_map": levels}
    return wide, {f"weight.{name}": tensor for name, tensor in tensors.items()}, offset


def int8(*, early: bool = False) -> Packer:
    """bitsandbytes' 8 bits. early: without weight_format."""

    def pack(weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        most = weight.abs().amax(1)
        q = (weight / most[:, None] * 127).round().to(torch.int8)
        tensors = {"weight": q, "SCB": most}
        if not early:
            tensors["weight_format"] = torch.zeros((), dtype=torch.uint8)
        return tensors, q * most[:, None] / 127

    return pack


GPTQ_CONFIG = {"quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": False, "sym": False}
AWQ_CONFIG = {"quant_method": "awq", "bits": 4, "group_size": 16, "zero_point": True, "version": "gemm"}
BNB_CONFIG = {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False}
BNB8_CONFIG = {"quant_method": "bitsandbytes", "load_in_4bit": False, "load_in_8bit": True}
# What a repository says of itself in config.json, and how it is packed.
FORMS: dict[str, tuple[dict[str, object], Packer]] = {
    "gptq": (GPTQ_CONFIG, gptq()),
    "gptq-8": (GPTQ_CONFIG | {"bits": 8, "group_size": -1}, gptq(8, None)),
    "gptq-ordered": (GPTQ_CONFIG | {"desc_act": True}, gptq(ordered=True)),
    "gptq-v2": (GPTQ_CONFIG | {"checkpoint_format": "gptq_v2"}, gptq(v2=True, counted=True)),
    "awq": (AWQ_CONFIG, awq()),
    "nf4": (BNB_CONFIG, nf4()),
    "nf4-double": (BNB_CONFIG | {"bnb_4bit_use_double_quant": True}, nf4(double=True)),
    "int8": (BNB8_CONFIG, int8()),
}
