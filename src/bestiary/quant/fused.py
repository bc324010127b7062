"""All blocks of a model in one native call when there is one token: the step that generation repeats.

For one token a block is seven products of a matrix and a vector, each of a few microseconds, and the calls
around them cost as much. `fuse` puts FusedBlocks in the place of a model's Blocks, with the same blocks in
it: weights, names, adapters and cache slots stay where they were. Every other situation (prompts, batches,
other contexts, training, torch.compile, hooks, another device or dtype) runs the blocks' own forward, and so
does every block that the C kernels do not know.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import is_
from typing import TypeGuard, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..bricks import Attention, GatedMLP, PreNorm, Rotary, unmoved
from ..context import Cache, Context, Stream
from ..kernels import native
from ..models import Blocks, EncoderDecoder, Model
from .linear import PackedLinear

__all__ = ["FusedBlocks", "fuse", "refusal"]

# The most channels of a head that the C code has room for (MOST_DIM in kernels/native/native.h).
_MOST_DIM = 256
# Elements that one thread norms sooner than two can be told to.
_SMALL = 1 << 14


def fuse(model: Model) -> int:
    """Let the C kernels compute every block they can for one token at a time; return how many they can.

    RMSNorms become native ones, for any number of tokens. Call it when the weights are in place. `refusal`
    says why a block is left as it is.
    """
    for path, module in list(model.named_modules()):
        if _is_rms_norm(module):
            model.set_submodule(path, FusedRMSNorm(module))
    stack = model.decoder if isinstance(model, EncoderDecoder) else model
    stack.layers = FusedBlocks(stack.layers)
    return sum(refusal(block) is None for block in stack.layers)


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
    if not _is_rms_norm(norm):
        return f"{type(norm).__name__} has no C kernel"
    return _tensor_refusal(norm.weight, torch.float32)


def _is_rms_norm(norm: nn.Module) -> TypeGuard[nn.RMSNorm]:
    """Tell whether it is the one norm that C knows: over the last channels alone, with a weight."""
    if type(norm) not in (nn.RMSNorm, FusedRMSNorm):
        return False
    plain = cast(nn.RMSNorm, norm)
    return plain.eps is not None and plain.elementwise_affine and len(plain.normalized_shape) == 1


def _linear_refusal(linear: nn.Module) -> str | None:
    if type(linear) is nn.Linear:
        reason = _tensor_refusal(linear.weight, torch.float32)
    elif type(linear) is PackedLinear:
        reason = _tensor_refusal(linear.weight, torch.uint8)
    else:
        return f"{type(linear).__name__} has no C kernel"
    return reason if reason or linear.bias is None else _tensor_refusal(linear.bias, torch.float32)


def _tensor_refusal(tensor: Tensor, dtype: torch.dtype) -> str | None:
    if tensor.dtype == dtype and tensor.device.type == "cpu" and tensor.is_contiguous():
        return None
    return f"a weight is {tensor.dtype} on {tensor.device}"


def _sizes_refusal(block: PreNorm) -> str | None:
    """Compare the sizes of the parts, which modules only meet when they run, and C never checks."""
    b = _block(block)
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


class FusedRMSNorm(nn.RMSNorm):
    """nn.RMSNorm in one pass over memory, in float32 on a CPU, outside of autograd."""

    def __init__(self, norm: nn.RMSNorm) -> None:
        with torch.device("meta"):  # its own weight is about to be replaced
            super().__init__(norm.normalized_shape, norm.eps)
        self.weight = norm.weight
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        if (
            torch.is_grad_enabled()
            or torch.compiler.is_compiling()
            or not (x.dtype == weight.dtype == torch.float32 and x.is_cpu and weight.is_cpu)
            or not (x.is_contiguous() and weight.is_contiguous() and x.shape[-1:] == weight.shape)
            or native.absence() is not None
        ):
            return super().forward(x)
        out = torch.empty_like(x)
        rows, width = x.numel() // len(weight), len(weight)
        threads = torch.get_num_threads() if x.numel() > _SMALL else 1
        addresses = x.data_ptr(), weight.data_ptr(), rows, width, self.eps, out.data_ptr()
        native.library().rms_norm(*addresses, threads)
        return out


class FusedBlocks(Blocks):
    """Blocks with a shortcut for one token of one sequence, in float32 on a CPU, outside of autograd."""

    def __init__(self, blocks: Blocks) -> None:
        super().__init__(blocks)
        self.train(blocks.training)
        self._plan: _Plan | None = None

    def __getstate__(self) -> dict[str, object]:
        # A copy has its own weights, and addresses cannot be copied: it makes its own plan.
        return self.__dict__ | {"_plan": None}

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        if not _is_one_token(x, ctx) or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return super().forward(x, ctx)
        if self._plan is None or not self._plan.current():
            self._plan = _Plan(self)
        return super().forward(x, ctx) if self._plan.watched() else self._plan.run(x, cast(Stream, ctx))


def _is_one_token(x: Tensor, ctx: Context) -> bool:
    return (
        type(ctx) is Stream
        and ctx.start is not None
        and 0 <= ctx.start < ctx.cache.capacity
        and (ctx.prompt is None or ctx.prompt.since is None)
        and x.shape[:2] == (1, 1)
        and x.dtype == torch.float32
        and x.is_cpu
    )


def _block(block: PreNorm) -> native.Block:
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


class _Run:
    """Neighbouring blocks that one native call computes; or, without `blocks`, one that it cannot."""

    def __init__(self, modules: tuple[nn.Module, ...], blocks: ctypes.Array[native.Block] | None) -> None:
        self.modules, self.blocks = modules, blocks
        self._cache: Callable[[], Cache | None] = lambda: None
        self._addresses: list[int] = []  # of the cache's keys, then of its values
        self._turns: Tensor | None = None

    def takes(self, x: Tensor, cache: Cache) -> bool:
        """Tell whether x and the cache are what C will take them for."""
        if self.blocks is None or x.shape[2] != self.blocks[0].o.rows:
            return False
        tensors = self._cached(cache)
        addresses = list(map(Tensor.data_ptr, tensors))
        # Looked at closely only where something is new: it takes longer than one matrix.
        if self._cache() is not cache or addresses != self._addresses:
            shape = (1, cache.capacity, self.blocks[0].kv_heads, self.blocks[0].dim)
            fits = (
                t.shape == shape and t.dtype == torch.float32 and t.is_cpu and t.is_contiguous()
                for t in tensors
            )
            if len(tensors) != 2 * len(self.modules) or not all(fits):
                return False
            self._cache, self._addresses = weakref.ref(cache), addresses
        return True

    def compute(self, x: Tensor, ctx: Stream) -> Tensor:
        """Return x after these blocks, their keys and values appended to the cache that `takes` looked at."""
        library, threads, count = native.library(), torch.get_num_threads(), len(self.modules)
        array = ctypes.c_void_p * count
        keys, values = array(*self._addresses[:count]), array(*self._addresses[count:])
        turns, magnitude = self._rotation(ctx)
        token = native.Token(turns.data_ptr(), keys, values, ctx.start, magnitude)
        scratch = x.new_empty(library.blocks_scratch(self.blocks, count, ctx.start, threads))
        out = x.clone(memory_format=torch.contiguous_format)
        library.blocks(self.blocks, count, token, out.data_ptr(), scratch.data_ptr(), threads)
        return out

    def _rotation(self, ctx: Stream) -> tuple[Tensor, float]:
        """Return radians a position (turned / 2,) and the factor on what was turned."""
        rotary = self._attn.position
        if not isinstance(rotary, Rotary):
            return torch.empty(0), 1.0
        turns = self._turns
        if turns is None:
            turns = rotary.frequencies(rotary.dim, rotary.base, ctx)
            if turns.ndim == 1:  # the same at every position and length
                self._turns = turns
        return turns.contiguous(), rotary.frequencies.magnitude

    @property
    def _attn(self) -> Attention:
        # The first block's: the others have the same positions, and the cache slots after its own.
        return cast(Attention, self.modules[0].attn)

    def _cached(self, cache: Cache) -> list[Tensor]:
        slot = self._attn.slot.index
        return cache.k[slot : slot + len(self.modules)] + cache.v[slot : slot + len(self.modules)]


def _runs(blocks: Blocks) -> Iterator[_Run]:
    """Cut blocks into the longest runs that C can compute, and single blocks that it cannot."""

    def key(numbered: tuple[int, nn.Module]) -> tuple[object, ...]:
        index, block = numbered
        if refusal(block) is not None:
            return (index,)
        attn = cast(Attention, block.attn)
        cached = (attn.slot.index - index, attn.k.out_features, attn.head_dim)
        return ("fused", cached, attn.position, attn.q.in_features)

    for (kind, *_), group in groupby(enumerate(blocks), key):
        modules = tuple(block for _, block in group)
        if kind == "fused":
            described = (native.Block * len(modules))(*(_block(cast(PreNorm, block)) for block in modules))
            yield _Run(modules, described)
        else:
            yield _Run(modules, None)


class _Plan:
    """What C is told of a model's blocks. Made once, and again when a module or a weight was replaced."""

    def __init__(self, blocks: Blocks) -> None:
        self.runs = list(_runs(blocks))
        self._blocks = tuple(blocks)
        self._holders, self._names, self._parts = list[dict[str, object]](), list[str](), list[object]()
        for module in blocks.modules():
            for holder in (module._modules, module._parameters, module._buffers):
                self._holders += [cast(dict[str, object], holder)] * len(holder)
                self._names += holder.keys()
                self._parts += holder.values()
        self._tensors = [part for part in self._parts if isinstance(part, Tensor)]
        self._addresses = list(map(Tensor.data_ptr, self._tensors))

    def current(self) -> bool:
        """Tell whether every module and tensor below the blocks is still the one described, where it was.

        model.half().float() and `weight.data = ...` keep the tensor and move its memory.
        """
        # Without a loop of Python's own: there are about thirty a block, and this runs for every token.
        same = all(map(is_, map(dict.get, self._holders, self._names), self._parts))
        return same and list(map(Tensor.data_ptr, self._tensors)) == self._addresses

    def watched(self) -> bool:
        """Tell whether a hook waits for one of the blocks to be called."""
        return any(block._forward_hooks or block._forward_pre_hooks for block in self._blocks)

    def run(self, x: Tensor, ctx: Stream) -> Tensor:
        """Return x (1, 1, width) after all blocks, their keys and values appended to the cache."""
        for run in self.runs:
            if run.takes(x, ctx.cache):
                x = run.compute(x, ctx)
            else:
                for module in run.modules:
                    x = module(x, ctx)
        return x
