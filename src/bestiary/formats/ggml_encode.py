"""Encoders of ggml's block formats, in torch: float32 to packed bytes, by the recipes of ggml's references.

Every encoder takes float32 of shape (..., blocks * block) and gives uint8 of shape (..., blocks * nbytes), in
the layouts that ggml.py decodes. Q8_0 and Q4_0 are equal to ggml's bit for bit, and so are F16 and BF16. Q4_K
and Q6_K search for their scales as quantize_row_q4_K_ref and quantize_row_q6_K_ref do (ggml-quants.c,
https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c): sums in float32 and in the same order, so
that all but about one group of 32 in 16,000 are equal bit for bit, and that one by a step of a scale.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Elements that are encoded at once: what bounds the memory of a search, a dozen times this in float32.
_CHUNK = 1 << 21
# What ggml takes for zero (GROUP_MAX_EPS).
_NOTHING = 1e-15


def encode_f16(x: Tensor) -> Tensor:
    """F16: rounded half to even."""
    return x.half().contiguous().view(torch.uint8)


def encode_bf16(x: Tensor) -> Tensor:
    """BF16: rounded half to even."""
    return x.bfloat16().contiguous().view(torch.uint8)


def encode_q8_0(x: Tensor) -> Tensor:
    """Q8_0: d = largest |x| / 127, q = x / d, rounded half away from zero. The integers see d in float32."""
    blocks = x.unflatten(-1, (-1, 32))
    d = blocks.abs().amax(-1, keepdim=True) / 127
    scaled = blocks * _inverse(d)
    # torch rounds half to even, C's roundf half away from zero.
    q = (scaled.abs() + 0.5).floor().where((scaled.abs() % 1) == 0.5, scaled.round().abs())
    return _bytes(_half(d), (q * scaled.sign()).to(torch.int8).view(torch.uint8))


def encode_q4_0(x: Tensor) -> Tensor:
    """Q4_0: d = (the x of largest size, with its sign) / -8, q = x / d + 8, cut after adding 0.5."""
    blocks = x.unflatten(-1, (-1, 32))
    d = (blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True)) + 0.0) / -8  # there is no -0 to begin with
    q = (blocks * _inverse(d) + 8.5).to(torch.int8).clamp_max(15).view(torch.uint8)
    return _bytes(_half(d), _nibbles(q, 16))


def encode_q5_0(x: Tensor) -> Tensor:
    """Q5_0: d = (the x of largest size, with its sign) / -16, q = x / d + 16, cut after adding 0.5."""
    blocks = x.unflatten(-1, (-1, 32))
    d = (blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True)) + 0.0) / -16
    q = (blocks * _inverse(d) + 16.5).to(torch.int8).clamp_max(31).view(torch.uint8)
    places = torch.arange(8, dtype=torch.uint8, device=x.device)
    fifth = ((q >> 4).unflatten(-1, (4, 8)) << places).sum(-1, dtype=torch.uint8)
    return _bytes(_half(d), fifth, _nibbles(q & 15, 16))


def encode_q4_k(x: Tensor) -> Tensor:
    """Q4_K: for each 32 the scale and offset of least weighted square error, both to 6 bits of 256's."""
    return _in_chunks(x, _q4_k)


def encode_q6_k(x: Tensor) -> Tensor:
    """Q6_K: for each 16 the scale of least weighted square error, to 8 bits of 256's."""
    return _in_chunks(x, _q6_k)


def _in_chunks(x: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
    """Encode blocks of 256, a few at a time, and give them back in x's shape."""
    flat = x.reshape(-1, 256)
    done = [encode(chunk) for chunk in flat.split(_CHUNK // 256)]
    return torch.cat(done).view(*x.shape[:-1], -1)


def _inverse(d: Tensor) -> Tensor:
    return torch.where(d == 0, torch.zeros_like(d), 1 / d)


def _over(number: float, x: Tensor) -> Tensor:
    """Return number / x, rounded once: torch's own `number / x` is number * (1 / x)."""
    divided: Tensor = torch.tensor(number, device=x.device) / x
    return divided


def _half(x: Tensor) -> Tensor:
    """Return (..., n) numbers as the bytes of float16, (..., 2n)."""
    return x.half().contiguous().view(torch.uint8)


def _bytes(*fields: Tensor) -> Tensor:
    """Join the fields of blocks, each (..., blocks, bytes), to rows of bytes."""
    return torch.cat(fields, -1).flatten(-2)


def _nibbles(q: Tensor, group: int) -> Tensor:
    """Pack (..., 2n) four-bit integers to (..., n) bytes, in groups of `group` bytes: low halves first."""
    low, high = torch.unflatten(q, -1, (-1, 2, group)).unbind(-2)
    return (low | high << 4).flatten(-2)


def _q4_k(x: Tensor) -> Tensor:
    """Encode (N, 256) floats to (N, 144) bytes."""
    columns = x.view(-1, 32).mT.contiguous()  # (32, 8N): a sum over a group is a sum of rows, in order
    scale, least = (found.view(-1, 8) for found in _scale_and_least(columns))
    d, s = _shared(scale, 63.0)
    dmin, m = _shared(least, 63.0)
    step, offset = d.float() * s.float(), dmin.float() * m.float()
    q = ((x.view(-1, 8, 32) + offset[..., None]) / step[..., None]).round().clamp(0, 15)
    q = q.nan_to_num(0).to(torch.uint8).flatten(1)  # a step of zero: nothing is there
    low = torch.cat([s[:, :4] | (s[:, 4:] >> 4) << 6, m[:, :4] | (m[:, 4:] >> 4) << 6], 1)
    return torch.cat([_half(d), _half(dmin), low, s[:, 4:] & 15 | (m[:, 4:] & 15) << 4, _nibbles(q, 32)], 1)


def _shared(values: Tensor, most: float) -> tuple[Tensor, Tensor]:
    """Return float16 (N, 1) d and uint8 (N, 8) integers up to `most`, which together stand for the values."""
    largest = values.amax(1, keepdim=True).clamp_min(0) + 0.0  # of -0 and 0, 0
    inverse = torch.where(largest > 0, _over(most, largest), torch.zeros_like(largest))
    return (largest / most).half(), (inverse * values).round().clamp(0, most).to(torch.uint8)


def _scale_and_least(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scale and the (negated) least value of each column of x (32, N): make_qkx2_quants.

    Integers 0 to 15 are tried for 22 widths of step; for each the best scale and least value follow in closed
    form. An element's error counts by its size plus the group's root mean square.
    """
    squares = torch.zeros_like(x[0])
    for row in x:
        squares = squares + row * row
    # In float64, as torch's square root of a float32 is the wrong one of two neighbours in 6 of 1,000.
    weights = (squares / 32).double().sqrt().float() + x.abs()
    total, weighted = weights[0], weights[0] * x[0]
    for row, w in zip(x[1:], weights[1:], strict=True):
        total, weighted = total + w, weighted + w * row
    most, least = x.amax(0), x.amin(0).clamp_max(0)
    flat = most == least
    inverse = _over(15.0, most - least)
    scale, first = 1 / inverse, least
    best = _error(x, weights, _integers(x, inverse, least), scale, least)
    for step in range(21):
        # In float32 throughout, as there: -1 + 0.1 * step + 15.
        width = torch.tensor(-1.0) + torch.tensor(0.1) * step + 15
        q = _integers(x, width / (most - least), least)
        found, lowest, solvable = _fit(x, weights, q, total, weighted)
        error = _error(x, weights, q, found, lowest)
        better = solvable & (error < best)
        best, scale = torch.where(better, error, best), torch.where(better, found, scale)
        least = torch.where(better, lowest, least)
    zero = torch.zeros_like(scale)
    return torch.where(flat, zero, scale), -torch.where(flat, first, least)


def _integers(x: Tensor, inverse: Tensor, least: Tensor) -> Tensor:
    return (inverse * (x - least)).round_().clamp_(0, 15)


def _fit(x: Tensor, weights: Tensor, q: Tensor, total: Tensor, weighted: Tensor) -> tuple[Tensor, ...]:
    """Return the scale and least value of least error for integers q, and where there are such."""
    of_q, of_qq, of_qx = (torch.zeros_like(total) for _ in range(3))
    for row, w, n in zip(x, weights, q, strict=True):
        wn = w * n
        of_q, of_qq, of_qx = of_q + wn, of_qq + wn * n, of_qx + wn * row
    determinant = total * of_qq - of_q * of_q
    scale = (total * of_qx - weighted * of_q) / determinant
    least = (of_qq * weighted - of_q * of_qx) / determinant
    above = least > 0  # zero has to stay within reach
    scale = torch.where(above, of_qx / of_qq, scale)
    return scale, torch.where(above, torch.zeros_like(least), least), determinant > 0


def _error(x: Tensor, weights: Tensor, q: Tensor, scale: Tensor, least: Tensor) -> Tensor:
    total = torch.zeros_like(scale)
    for row, w, n in zip(x, weights, q, strict=True):
        apart = scale * n + least - row
        total = total + w * (apart * apart)
    return total


def _q6_k(x: Tensor) -> Tensor:
    """Encode (N, 256) floats to (N, 210) bytes."""
    scale = _scale(x.view(-1, 16).mT.contiguous()).view(-1, 16)
    largest = scale.gather(1, scale.abs().argmax(1, keepdim=True))
    empty = largest.abs() < _NOTHING
    inverse = torch.where(empty, torch.zeros_like(largest), _over(-128.0, largest))
    d = _inverse(inverse).half()
    s = (inverse * scale).round().clamp_max(127)
    step = d.float() * s
    q = (x.view(-1, 16, 16) / step[..., None]).round().clamp(-32, 31)
    q = torch.where(step[..., None] == 0, -32.0, q)  # nothing is there, and so all bits are zero
    six = (q + 32).to(torch.uint8).view(-1, 2, 128)
    low = _nibbles(six & 15, 64).flatten(1)
    # Of each 128, the two high bits of four quarters lie in one byte.
    a, b, c, e = (six >> 4).unflatten(-1, (4, 32)).unbind(2)
    high = (a | b << 2 | c << 4 | e << 6).flatten(1)
    return torch.cat([low, high, s.to(torch.int8).view(torch.uint8), _half(d)], 1)


def _scale(x: Tensor) -> Tensor:
    """Return the scale of each column of x (16, N) for integers -32 to 31: make_qx_quants.

    19 widths of step are tried, and an element's error counts by its square.
    """
    largest = x.gather(0, x.abs().argmax(0, keepdim=True))[0]
    scale, best = torch.zeros_like(largest), torch.full_like(largest, -1.0)
    for step in (0, *range(-9, 0), *range(1, 10)):
        inverse = -(torch.tensor(0.1) * step + 32) / largest
        q = (inverse * x).round_().clamp_(-32, 31)
        of_qx, of_qq = torch.zeros_like(largest), torch.zeros_like(largest)
        for row, n in zip(x, q, strict=True):
            w = row * row
            of_qx, of_qq = of_qx + w * row * n, of_qq + w * n * n
        found = of_qx / of_qq
        better = (of_qq > 0) & (of_qx * of_qx > best * of_qq) if step else of_qq > 0
        scale, best = torch.where(better, found, scale), torch.where(better, found * of_qx, best)
    return torch.where(largest.abs() < _NOTHING, torch.zeros_like(scale), scale)
