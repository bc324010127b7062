"""Which blocks the C kernels can compute, and what they are told of them."""

from __future__ import annotations

from typing import TypeGuard, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..bricks import Attention, GatedMLP, PreNorm, Rotary, unmoved
from ..kernels import native
from .fused_modules import FusedRMSNorm
from .linear import PackedLinear

__all__ = ["describe", "is_rms_norm", "refusal", "tensor_refusal"]

# The most channels of a head that the C code has room for (MOST_DIM in kernels/native/native.h).
_MOST_DIM = 256


def refusal(block: nn.Module) -> str | None:
    """Return why the C kernels cannot compute a block, or None when they can."""
    if (reason := native.absence()) is not None:
        return reason
    if type(block) is not PreNorm or type(block.attn) is not Attention or type(block.mlp) is not GatedMLP:
        return "it is not a PreNorm of an Attention and a GatedMLP"
    if block.mlp.act is not F.silu:
        return "its activation is not silu"
    norms = (_norm_refusal(norm) for norm in (block.attn_norm, block.mlp_norm))
    linears = (_linear_refusal(linear) for linear in _linears(block))
    reasons = (_attention_refusal(block.attn), *norms, *linears)
    return next((reason for reason in reasons if reason), None) or _sizes_refusal(block)


def _attention_refusal(attn: Attention) -> str | None:
    score, dim = attn.score, attn.head_dim
    if not (isinstance(attn.q_norm, nn.Identity) and isinstance(attn.k_norm, nn.Identity)):
        return "its queries or keys are normed"
    if not score.causal or any((score.softcap, score.bias, score.meeting)):
        return "its scores are capped, biased, turned or not causal"
    if type(attn.position) is not Rotary and attn.position is not unmoved:
        return "its positions are not rotary"
    return None if dim % 16 == 0 and dim <= _MOST_DIM else f"its heads have {dim} channels"


def _norm_refusal(norm: nn.Module) -> str | None:
    if not is_rms_norm(norm):
        return f"{type(norm).__name__} has no C kernel"
    return tensor_refusal(norm.weight, torch.float32)


def is_rms_norm(norm: nn.Module) -> TypeGuard[nn.RMSNorm]:
    """Tell whether it is the one norm that C knows: over the last channels alone, with a weight."""
    if type(norm) not in (nn.RMSNorm, FusedRMSNorm):
        return False
    plain = cast(nn.RMSNorm, norm)
    return plain.eps is not None and plain.elementwise_affine and len(plain.normalized_shape) == 1


def _linear_refusal(linear: nn.Module) -> str | None:
    if type(linear) is nn.Linear:
        reason = tensor_refusal(linear.weight, torch.float32)
    elif type(linear) is PackedLinear:
        reason = tensor_refusal(linear.weight, torch.uint8)
    else:
        return f"{type(linear).__name__} has no C kernel"
    return reason if reason or linear.bias is None else tensor_refusal(linear.bias, torch.float32)


def tensor_refusal(tensor: Tensor, dtype: torch.dtype) -> str | None:
    """Return why a weight cannot be read as `dtype` from memory, or None when it can."""
    if tensor.dtype == dtype and tensor.device.type == "cpu" and tensor.is_contiguous():
        return None
    return f"a weight is {tensor.dtype} on {tensor.device}"


def _sizes_refusal(block: PreNorm) -> str | None:
    """Compare the sizes of the parts, which modules only meet when they run, and C never checks."""
    b = describe(block)
    width, wide = b.q.columns, b.heads * b.dim
    norms = (block.attn_norm, block.mlp_norm)
    fits = (
        [m.columns for m in (b.k, b.v, b.gate, b.up)] == [width] * 4
        and [m.rows for m in (b.o, b.down)] == [width] * 2
        and [cast(nn.RMSNorm, norm).weight.shape for norm in norms] == [(width,)] * 2
        and (b.q.rows, b.o.columns) == (wide, wide)
        and b.k.rows == b.v.rows == b.kv_heads * b.dim
        and b.gate.rows == b.up.rows == b.down.columns
        and b.kv_heads
        and b.heads % b.kv_heads == 0
        and b.turned <= b.dim
    )
    return None if fits else "its parts do not fit each other"


def _linears(block: PreNorm) -> tuple[nn.Module, ...]:
    attn, mlp = cast(Attention, block.attn), cast(GatedMLP, block.mlp)
    return attn.q, attn.k, attn.v, attn.o, mlp.gate, mlp.up, mlp.down


def describe(block: PreNorm) -> native.Block:
    """Describe a block to C."""
    attn = cast(Attention, block.attn)
    score, position, dim = attn.score, attn.position, attn.head_dim
    attn_norm, mlp_norm = (cast(nn.RMSNorm, norm) for norm in (block.attn_norm, block.mlp_norm))
    return native.Block(
        *(_matrix(cast(nn.Linear | PackedLinear, linear)) for linear in _linears(block)),
        attn_norm=attn_norm.weight.data_ptr(),
        mlp_norm=mlp_norm.weight.data_ptr(),
        heads=attn.q.out_features // dim,
        kv_heads=attn.k.out_features // dim,
        dim=dim,
        turned=position.dim if isinstance(position, Rotary) else 0,
        interleaved=isinstance(position, Rotary) and position.interleaved,
        window=score.window or 0,
        attn_eps=attn_norm.eps,
        mlp_eps=mlp_norm.eps,
        scale=score.scale or dim**-0.5,
    )


def _matrix(linear: nn.Linear | PackedLinear) -> native.Matrix:
    weight, bias = linear.weight, linear.bias
    kind = linear.fmt.name if isinstance(linear, PackedLinear) else "F32"
    return native.Matrix(
        w=weight.data_ptr(),
        bias=None if bias is None else bias.data_ptr(),
        rows=linear.out_features,
        columns=linear.in_features,
        row_bytes=weight.stride(0) * weight.itemsize,
        format=native.library().formats[kind],
    )
