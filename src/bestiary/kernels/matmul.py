"""Products with a matrix that stays packed: decode a few rows at a time, multiply in float32.

Shapes: x (..., in), weight uint8 (out, row bytes), result (..., out). The weight is never decoded as a whole
when it is large, so a model of 4-bit weights needs 4 bits a weight, in the file's own memory map.

The reference is plain torch. The native implementation (see native.py) multiplies few rows of x straight from
the packed bytes, and decodes for more a few rows of the weight at a time. It sums every number of the result
in one order: a row of x gives the same bits alone and beside any others, on any number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import KernelError
from ..formats import Format, get
from . import Table, native

__all__ = ["decode", "float_linear", "linear", "packed_decode", "packed_linear"]

# Elements of weight decoded at a time by the reference: 16 MiB of float32, small beside any model, large
# enough that the product and not the call dominates.
_TILE = 1 << 22
# From so many vectors of x on their places matter (_vectors); floats of a line of the cache, and of eight.
_MANY = 6
_LINE, _LINES = 16, 128
# Multiply-adds that one thread does sooner than two can be told to.
_SMALL = 1 << 16
_KINDS = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def packed_linear(x: Tensor, weight: Tensor, fmt: Format, bias: Tensor | None = None) -> Tensor:
    """Multiply x by a packed matrix: x @ decode(weight).T + bias, accumulated in float32, in the dtype of x.

    x (..., in) of a floating dtype, weight uint8 (out, fmt.row_bytes(in)), bias (out,). Differentiable in x
    and bias; the backward pass decodes the rows again instead of keeping them. KernelError when the shapes do
    not fit.
    """
    _check(x, weight, fmt, bias)
    if torch.compiler.is_compiling():
        compiled: Tensor = _linear_op(x, weight, fmt.name, bias)
        return compiled
    if torch.is_grad_enabled() and (x.requires_grad or (bias is not None and bias.requires_grad)):
        tracked: Tensor = _Differentiable.apply(x, weight, fmt, bias)  # type: ignore[no-untyped-call]
        return tracked
    return linear(x, weight, fmt, bias)


def packed_decode(packed: Tensor, fmt: Format) -> Tensor:
    """Decode packed rows, uint8 (..., row bytes), to float32 (..., columns): what `fmt.decode` gives,
    faster."""
    if torch.compiler.is_compiling():
        compiled: Tensor = _decode_op(packed, fmt.name)
        return compiled
    return decode(packed, fmt)


def _check(x: Tensor, weight: Tensor, fmt: Format, bias: Tensor | None) -> None:
    fits = (
        weight.ndim == 2
        and weight.dtype == torch.uint8
        and x.ndim > 0
        and x.shape[-1] % fmt.block == 0
        and x.shape[-1] // fmt.block * fmt.nbytes == weight.shape[1]
        and (bias is None or bias.shape == weight.shape[:1])
    )
    if not fits:
        columns = weight.shape[-1] // fmt.nbytes * fmt.block if weight.ndim else 0
        tail = "" if bias is None else f" and a bias of {tuple(bias.shape)}"
        raise KernelError(
            f"x of {tuple(x.shape)} does not fit a {fmt.name} weight of {tuple(weight.shape)} {weight.dtype}"
            f" that takes {columns} columns{tail}"
        )
    if not x.is_floating_point():
        raise KernelError(f"a packed product takes floating point x, not {x.dtype}")


def _tiles(weight: Tensor, columns: int) -> Iterator[slice]:
    step = max(1, _TILE // max(1, columns))
    return (slice(start, start + step) for start in range(0, weight.shape[0], step))


def _reference_linear(x: Tensor, weight: Tensor, fmt: Format, bias: Tensor | None) -> Tensor:
    # float64 stays what it is: the tests' oracle.
    work = torch.promote_types(x.dtype, torch.float32)
    y = x.new_empty((*x.shape[:-1], weight.shape[0]), dtype=work)
    wide = x.to(work)
    for rows in _tiles(weight, x.shape[-1]):
        y[..., rows] = F.linear(wide, fmt.decode(weight[rows]).to(work))
    return (y if bias is None else y + bias.to(work)).to(x.dtype)


def _reference_decode(packed: Tensor, fmt: Format) -> Tensor:
    return fmt.decode(packed)


def _input_gradient(gradient: Tensor, weight: Tensor, fmt: Format) -> Tensor:
    """Multiply (..., out) by decode(weight), row tile by row tile."""
    columns = fmt.columns(weight.shape[1])
    total = gradient.new_zeros((*gradient.shape[:-1], columns), dtype=torch.float32)
    for rows in _tiles(weight, columns):
        # The operator, since a compiler traces the backward pass without saying that it is compiling.
        total += gradient[..., rows].float() @ _decode_op(weight[rows], fmt.name)
    return total.to(gradient.dtype)


def _gradients(
    ctx: Any, gradient: Tensor, weight: Tensor, fmt: Format
) -> tuple[Tensor | None, None, None, Tensor | None]:
    wants_x, _, _, wants_bias = ctx.needs_input_grad
    to_x = _input_gradient(gradient, weight, fmt) if wants_x else None
    to_bias = gradient.flatten(0, -2).sum(0).to(ctx.bias_dtype) if wants_bias else None
    return to_x, None, None, to_bias


class _Differentiable(torch.autograd.Function):
    """packed_linear with a backward pass that decodes again: autograd would keep the decoded tiles."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, fmt: Format, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.fmt, ctx.bias_dtype = fmt, None if bias is None else bias.dtype
        return linear(x, weight, fmt, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _gradients(ctx, gradients[0], ctx.saved_tensors[0], ctx.fmt)


# Under torch.compile the two operations are opaque: the graph holds one node, and the choice is made when it
# runs. Outside it they are called plainly, because an operator written in Python costs about 10 us a call.


@torch.library.custom_op("bestiary::packed_linear", mutates_args=())
def _linear_op(x: Tensor, weight: Tensor, fmt: str, bias: Tensor | None) -> Tensor:
    return linear(x, weight, get(fmt), bias)


@_linear_op.register_fake
def _(x: Tensor, weight: Tensor, fmt: str, bias: Tensor | None) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, weight, fmt, bias = inputs
    ctx.save_for_backward(weight)
    ctx.fmt, ctx.bias_dtype = get(fmt), None if bias is None else bias.dtype


def _backward(ctx: Any, gradient: Tensor) -> Any:
    return _gradients(ctx, gradient, ctx.saved_tensors[0], ctx.fmt)


torch.library.register_autograd("bestiary::packed_linear", _backward, setup_context=_keep)


@torch.library.custom_op("bestiary::packed_decode", mutates_args=())
def _decode_op(packed: Tensor, fmt: str) -> Tensor:
    return decode(packed, get(fmt))


@_decode_op.register_fake
def _(packed: Tensor, fmt: str) -> Tensor:
    kind = get(fmt)
    return packed.new_empty(
        (*packed.shape[:-1], packed.shape[-1] // kind.nbytes * kind.block), dtype=torch.float32
    )


def _native_supports(x: Tensor, weight: Tensor, fmt: Format, bias: Tensor | None) -> str | None:
    if (reason := _native_decodes(weight, fmt)) is not None:
        return reason
    return None if x.dtype in _KINDS and x.device.type == "cpu" else f"x is {x.dtype} on {x.device}"


def _native_decodes(packed: Tensor, fmt: Format) -> str | None:
    if (reason := native.absence()) is not None:
        return reason
    if packed.device.type != "cpu":
        return f"the weight is on {packed.device}"
    if packed.stride(-1) != 1 and packed.numel():
        return "the bytes of a packed row are not neighbours"
    return None


def _native_linear(x: Tensor, weight: Tensor, fmt: Format, bias: Tensor | None) -> Tensor:
    return _product(x, weight, fmt.name, bias)


def _product(x: Tensor, weight: Tensor, kind: str, bias: Tensor | None) -> Tensor:
    """Multiply x (..., columns) by the rows of a matrix of some kind, in float32, to the dtype of x."""
    rows, columns = weight.shape[0], x.shape[-1]
    count = x.numel() // columns if columns else 0
    wide, step = _vectors(x, count, columns)
    y = x.new_empty((*x.shape[:-1], rows), dtype=torch.float32)
    offset = None if bias is None else bias.float().contiguous()
    library = native.library()
    library.linear(
        library.formats[kind], weight.data_ptr(), rows, weight.stride(0) * weight.itemsize, columns,
        wide.data_ptr(), step, count, None if offset is None else offset.data_ptr(), y.data_ptr(),
        _threads(rows * columns * count),
    )  # fmt: skip
    return y.to(x.dtype)


def _floats_support(x: Tensor, weight: Tensor, bias: Tensor | None) -> str | None:
    if (reason := native.absence()) is not None:
        return reason
    if not (x.is_cpu and weight.is_cpu):
        return f"x is on {x.device}, the weight on {weight.device}"
    if not (x.dtype == weight.dtype and x.dtype in _KINDS and x.shape[-1:] == weight.shape[1:]):
        return f"x is {x.dtype} of {tuple(x.shape)}, the weight {weight.dtype} of {tuple(weight.shape)}"
    return None if weight.stride(1) == 1 or not weight.numel() else "a row's numbers are not neighbours"


def _native_floats(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _product(x, weight, _KINDS[x.dtype], bias)


def _vectors(x: Tensor, count: int, columns: int) -> tuple[Tensor, int]:
    """Return x (..., columns) as float32, and how many floats its vectors are apart.

    Where they would be a power of two apart, or nearly, they would all want the same places of the
    first-level cache: they are laid an odd number of its lines apart.
    """
    if count < _MANY or columns % _LINES:
        return x.float().contiguous(), columns
    step = columns + _LINE
    wide = torch.empty(count, step, dtype=torch.float32)
    wide[:, :columns] = x.reshape(count, columns)
    return wide, step


def _native_rows(packed: Tensor, fmt: Format, out: Tensor) -> Tensor:
    """Decode packed (rows, row bytes) into out (rows, columns), contiguous, and return it."""
    library = native.library()
    rows, columns = out.shape
    library.decode(
        library.formats[fmt.name], packed.data_ptr(), rows, packed.stride(0), columns, out.data_ptr(),
        _threads(rows * columns),
    )  # fmt: skip
    return out


def _native_decode(packed: Tensor, fmt: Format) -> Tensor:
    columns = fmt.columns(packed.shape[-1])
    rows = packed.reshape(-1, packed.shape[-1]) if packed.ndim != 2 else packed
    out = torch.empty(rows.shape[0], columns, dtype=torch.float32)
    return _native_rows(rows, fmt, out).view(*packed.shape[:-1], columns)


def _threads(work: int) -> int:
    return torch.get_num_threads() if work >= _SMALL else 1


# (x, weight, format, bias) -> (..., out)
linear: Table[Tensor] = Table("packed_linear")
linear.add("native", _native_linear, _native_supports, about=native.about)
linear.add("reference", _reference_linear)

# (packed, format) -> (..., columns) float32
decode: Table[Tensor] = Table("packed_decode")
decode.add("native", _native_decode, _native_decodes, about=native.about)
decode.add("reference", _reference_decode)

# (x (..., in), weight (out, in) of the same floating dtype, bias (out,) or None) -> (..., out)
float_linear: Table[Tensor] = Table("linear")
float_linear.add("native", _native_floats, _floats_support, about=native.about)
float_linear.add("reference", F.linear)
