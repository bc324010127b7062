"""Reference decoders of ggml's block formats, in torch: packed bytes to float32, bit for bit as in ggml.

A row of a packed matrix is a run of blocks. A block holds the integers of 32 or 256 neighbouring elements and
the scales to multiply them with. Every decoder takes uint8 of shape (..., blocks * nbytes) and gives float32
of shape (..., blocks * block). Each formula rounds in ggml's order (scale times scale, times integer, plus
offset), with no fused multiply-add, so equality is exact. The layouts are those of ggml's ggml-common.h
(`block_q4_0` and its neighbours), https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h.

In the layouts d is the block's float16 scale and m its float16 offset; a "super-block" of 256 elements has d
(and dmin) for all, and small integer scales for each 16 or 32 of them. Order of halves: in a group of 2n
elements stored in n bytes, the low halves are the first n elements and the high halves the last n.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import CheckpointError

# The sixteen values of the non-linear four-bit formats (ggml-common.h, kvalues_iq4nl).
IQ4_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def _split(packed: Tensor, *sizes: int) -> tuple[Tensor, ...]:
    """Cut (..., blocks * sum(sizes)) bytes into one (..., blocks, size) tensor for each field of a block."""
    total = sum(sizes)
    if packed.dtype != torch.uint8 or packed.ndim == 0 or packed.shape[-1] % total:
        raise CheckpointError(
            f"rows of {tuple(packed.shape)} {packed.dtype} are not a whole number of {total}-byte blocks",
            remedy="The tensor was cut or has another format",
        )
    return torch.split(torch.unflatten(packed, -1, (-1, total)), list(sizes), dim=-1)


def _half(raw: Tensor) -> Tensor:
    """Read (..., 2n) bytes as n little-endian float16, in float32."""
    # A copy, because a view as a wider type needs an aligned start that a block in the middle of a row lacks.
    return raw.clone(memory_format=torch.contiguous_format).view(torch.float16).float()


def _shifts(device: torch.device, *amounts: int) -> Tensor:
    return torch.tensor(amounts, dtype=torch.uint8, device=device)


def _nibbles(qs: Tensor, group: int) -> Tensor:
    """Unpack (..., n) bytes to (..., 2n) four-bit integers, in groups of `group` bytes: low, then high."""
    grouped = torch.unflatten(qs, -1, (-1, 1, group))
    return (grouped >> _shifts(qs.device, 0, 4)[:, None] & 0x0F).flatten(-3)


def _pairs(qs: Tensor, group: int) -> Tensor:
    """Unpack (..., n) bytes to (..., 4n) two-bit integers, in groups of `group` bytes, lowest bits first."""
    grouped = torch.unflatten(qs, -1, (-1, 1, group))
    return (grouped >> _shifts(qs.device, 0, 2, 4, 6)[:, None] & 0x03).flatten(-3)


def _bits(qh: Tensor) -> Tensor:
    """Unpack (..., n) bytes to (..., 8n) bits: bit k of the run is bit k % 8 of byte k // 8."""
    return (qh[..., None] >> _shifts(qh.device, *range(8)) & 1).flatten(-2)


def _planes(qh: Tensor) -> Tensor:
    """Unpack (..., n) bytes to (..., 8n) bits: the lowest bit of every byte, then the second, ..."""
    return (qh[..., None, :] >> _shifts(qh.device, *range(8))[:, None] & 1).flatten(-2)


def _integers(q: Tensor, offset: int) -> Tensor:
    return (q.to(torch.int8) - offset).float()


def decode_f16(packed: Tensor) -> Tensor:
    """F16: IEEE half precision."""
    (raw,) = _split(packed, 2)
    return _half(raw).flatten(-2)


def decode_bf16(packed: Tensor) -> Tensor:
    """BF16: the upper half of a float32."""
    (raw,) = _split(packed, 2)
    return raw.clone(memory_format=torch.contiguous_format).view(torch.bfloat16).float().flatten(-2)


def decode_q4_0(packed: Tensor) -> Tensor:
    """Q4_0: d * (q - 8), 32 elements in 18 bytes."""
    d, qs = _split(packed, 2, 16)
    return (_half(d) * _integers(_nibbles(qs, 16), 8)).flatten(-2)


def decode_q4_1(packed: Tensor) -> Tensor:
    """Q4_1: d * q + m, 32 elements in 20 bytes."""
    d, m, qs = _split(packed, 2, 2, 16)
    return (_half(d) * _nibbles(qs, 16).float() + _half(m)).flatten(-2)


def decode_q5_0(packed: Tensor) -> Tensor:
    """Q5_0: d * (q - 16), 32 elements in 22 bytes, the fifth bits apart."""
    d, qh, qs = _split(packed, 2, 4, 16)
    return (_half(d) * _integers(_nibbles(qs, 16) | _bits(qh) << 4, 16)).flatten(-2)


def decode_q5_1(packed: Tensor) -> Tensor:
    """Q5_1: d * q + m, 32 elements in 24 bytes, the fifth bits apart."""
    d, m, qh, qs = _split(packed, 2, 2, 4, 16)
    return (_half(d) * (_nibbles(qs, 16) | _bits(qh) << 4).float() + _half(m)).flatten(-2)


def decode_q8_0(packed: Tensor) -> Tensor:
    """Q8_0: d * q, 32 signed bytes in 34."""
    d, qs = _split(packed, 2, 32)
    return (_half(d) * qs.view(torch.int8).float()).flatten(-2)


def decode_q2_k(packed: Tensor) -> Tensor:
    """Q2_K: (d * scale) * q - (dmin * least), 256 elements in 84 bytes, scale and least (4 bits) each 16."""
    scales, qs, d, dmin = _split(packed, 16, 64, 2, 2)
    scale = _half(d) * (scales & 0x0F).float()
    least = _half(dmin) * (scales >> 4).float()
    q = torch.unflatten(_pairs(qs, 32), -1, (16, 16)).float()
    return (scale[..., None] * q - least[..., None]).flatten(-3)


def decode_q3_k(packed: Tensor) -> Tensor:
    """Q3_K: (d * (scale - 32)) * q, 256 elements in 110 bytes, a six-bit scale for each 16.

    q is the two low bits, less 4 where the bit of the high mask is 0. The scales' low four bits are halves of
    bytes 0 to 7, their two high bits are in bytes 8 to 11.
    """
    mask, qs, scales, d = _split(packed, 32, 64, 12, 2)
    low, high = torch.split(scales, [8, 4], dim=-1)
    scale = _half(d) * _integers(_nibbles(low, 8) | _pairs(high, 4) << 4, 32)
    q = _pairs(qs, 32).to(torch.int8) - ((_planes(mask) ^ 1) << 2).to(torch.int8)
    return (scale[..., None] * torch.unflatten(q, -1, (16, 16)).float()).flatten(-3)


def _scale_and_least(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Unpack the 12 bytes of Q4_K and Q5_K: eight 6-bit scales, eight 6-bit offsets (get_scale_min_k4)."""
    first, second, third = torch.split(raw, 4, dim=-1)
    scale = torch.cat([first & 0x3F, third & 0x0F | first >> 2 & 0x30], dim=-1)
    least = torch.cat([second & 0x3F, third >> 4 | second >> 2 & 0x30], dim=-1)
    return scale.float(), least.float()


def decode_q4_k(packed: Tensor) -> Tensor:
    """Q4_K: (d * scale) * q - (dmin * least), 256 elements in 144 bytes, scale and least (6 bits) each 32."""
    d, dmin, scales, qs = _split(packed, 2, 2, 12, 128)
    scale, least = _scale_and_least(scales)
    q = torch.unflatten(_nibbles(qs, 32), -1, (8, 32)).float()
    return ((_half(d) * scale)[..., None] * q - (_half(dmin) * least)[..., None]).flatten(-3)


def decode_q5_k(packed: Tensor) -> Tensor:
    """Q5_K: as Q4_K with a fifth bit for each element, 256 elements in 176 bytes."""
    d, dmin, scales, qh, qs = _split(packed, 2, 2, 12, 32, 128)
    scale, least = _scale_and_least(scales)
    q = torch.unflatten(_nibbles(qs, 32) | _planes(qh) << 4, -1, (8, 32)).float()
    return ((_half(d) * scale)[..., None] * q - (_half(dmin) * least)[..., None]).flatten(-3)


def decode_q6_k(packed: Tensor) -> Tensor:
    """Q6_K: (d * scale) * (q - 32), 256 elements in 210 bytes, a signed byte of scale for each 16."""
    low, high, scales, d = _split(packed, 128, 64, 16, 2)
    scale = _half(d) * scales.view(torch.int8).float()
    q = _integers(_nibbles(low, 64) | _pairs(high, 32) << 4, 32)
    return (scale[..., None] * torch.unflatten(q, -1, (16, 16))).flatten(-3)


def _looked_up(q: Tensor) -> Tensor:
    return torch.tensor(IQ4_VALUES, dtype=torch.float32, device=q.device)[q.long()]


def decode_iq4_nl(packed: Tensor) -> Tensor:
    """IQ4_NL: d * value[q], 32 elements in 18 bytes, from a table of sixteen values."""
    d, qs = _split(packed, 2, 16)
    return (_half(d) * _looked_up(_nibbles(qs, 16))).flatten(-2)


def decode_iq4_xs(packed: Tensor) -> Tensor:
    """IQ4_XS: (d * (scale - 32)) * value[q], 256 elements in 136 bytes, a six-bit scale for each 32."""
    d, high, low, qs = _split(packed, 2, 2, 4, 128)
    # Both in the order of the eight groups: nibbles two a byte, then pairs of bits four a byte.
    four = (low[..., None] >> _shifts(low.device, 0, 4) & 0x0F).flatten(-2)
    two = (high[..., None] >> _shifts(high.device, 0, 2, 4, 6) & 0x03).flatten(-2)
    scale = _half(d) * _integers(four | two << 4, 32)
    q = torch.unflatten(_looked_up(_nibbles(qs, 16)), -1, (8, 32))
    return (scale[..., None] * q).flatten(-3)
