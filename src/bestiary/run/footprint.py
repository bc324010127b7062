"""What a step takes beside weights and cache: counted by running the model on `meta`, computing nothing.

Every tensor that an operation makes is counted from then until nobody holds it, as an allocator would. Two
things are as the CPU has them and not as `meta` would: fused attention, which makes no scores, and RMSNorm in
one pass (quant.fused). Which experts a token goes to depends on data: a step is counted with one expert that
has every token, its most, and one of training with all experts evenly full, since all are kept.

How many bytes are alive after an operation is a polynomial in the tokens computed at once and the keys they
see, so a few small runs give it for any context (roster.published.shapes evaluates it). Not counted: what
Python, PyTorch and its threads take themselves, and the few bytes that an allocator rounds up.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from fractions import Fraction
from math import lcm
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..adapters.lora import LoRA
from ..bricks import Attention, MoE
from ..context import Cache, Full, Stream
from ..kernels import Kernel
from ..kernels.experts import Experts, mixture
from ..models import Blocks, Encoder, EncoderDecoder, Model
from ..roster.published.shapes import Moment
from ..swap import swap

# (tokens, keys): enough for 1, tokens, keys, tokens * keys and tokens ** 2, and one more to check them.
_POINTS = ((40, 200), (72, 328), (104, 264), (40, 328), (72, 200), (56, 456))
# Rows of training, as many tokens for each expert of a mixture: all have equal shares of them.
_ROWS = (480, 960, 1440)
# Where the highest moments are looked for: tokens at once, and times as many keys.
_TOKENS = (1, 2, 8, 32, 64, 128, 256, 512, 2048, 8192, 1 << 17)
_TIMES = (1, 2, 8, 64, 512)
# Layers that stand for any number of the same.
_FEW = (2, 3, 4)
# A usual adapter: PEFT's examples have this rank, and all linear layers but those of experts.
RANK = 16
ADAPTED = r"(?!.*experts)(.*\.)?layers\..*\.(q|k|v|o|gate|up|down)"


# What makes a model on `meta`, anew at each call.
Build = Callable[[], Model]
# Bytes alive at each moment, and the channels of those within attention; the same as polynomials.
Run = tuple[list[int], dict[int, int]]
Fit = tuple[list[list[int]], dict[int, int]]


class Counted(TorchDispatchMode):
    """Count the bytes of every tensor made inside, and of those alive after each operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive, self.moments = 0, list[int]()
        self._held: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {_key(tensor) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            # A view, and what was changed in place, hold no memory of their own.
            if isinstance(tensor, Tensor) and _key(tensor) not in given and _key(tensor) not in self._held:
                self._hold(tensor.untyped_storage())
        return out

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key, nbytes = storage._cdata, storage.nbytes()

        def free(_: object) -> None:
            del self._held[key]
            self.alive -= nbytes

        self._held[key] = weakref.ref(storage, free)
        self.alive += nbytes
        self.moments.append(self.alive)


class Fused(TorchFunctionMode):
    """Attention as the CPU computes it, in one pass: its result and the sums of its softmax, no scores.

    channels: of the value heads, at each moment that is within it, where every thread has a tile of its own.
    """

    def __init__(self, counted: Counted) -> None:
        super().__init__()
        self._counted, self.channels = counted, dict[int, int]()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        if torch.is_grad_enabled() and len(args) > 3 and args[3] is not None and args[3].requires_grad:
            return func(*args, **(kwargs or {}))  # scores that are learned (T5's) are made, one by one
        out = _Attention.apply(*args[:4])  # type: ignore[no-untyped-call]
        self.channels[len(self._counted.moments) - 1] = out.shape[-1]
        return out


class _Attention(torch.autograd.Function):
    """What fused attention makes, and what it keeps for the way back."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        sums = q.new_empty(q.shape[:-1], dtype=torch.float32)
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        ctx.save_for_backward(q, k, v, mask, sums, out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        q, k, v, *_ = ctx.saved_tensors
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), None


def _fullest(x: Tensor, weights: Tensor, chosen: Tensor, experts: Experts) -> Tensor:
    """Run one expert on all tokens, as kernels.experts.hit would."""
    return _with_expert(torch.zeros_like(x), x, weights, chosen, experts[0], len(x))


def _even(x: Tensor, weights: Tensor, chosen: Tensor, experts: Experts) -> Tensor:
    """Run every expert on its share of the tokens."""
    out, share = torch.zeros_like(x), chosen.numel() // len(experts)
    for expert in experts:
        out = _with_expert(out, x, weights, chosen, expert, share)
    return out


def _with_expert(
    out: Tensor, x: Tensor, weights: Tensor, chosen: Tensor, expert: Callable[[Tensor], Tensor], count: int
) -> Tensor:
    taken = chosen == 0
    rows, place = chosen.new_empty(count, 2).unbind(1)
    del taken
    return out.index_add(0, rows, weights[rows, place, None] * expert(x[rows]))


@contextmanager
def _standing_in(function: Callable[..., Tensor]) -> Iterator[None]:
    """Let a function take the place of what computes mixtures, until the block ends."""
    kernel = Kernel(function.__name__, function)
    mixture.kernels.insert(0, kernel)
    try:
        yield
    finally:
        mixture.kernels.remove(kernel)


class _OnePass(nn.Module):
    """An RMSNorm that makes its result and nothing else."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.empty_like(x)


def moments(build: Build, dtype: torch.dtype = torch.float32) -> tuple[Moment, ...]:
    """Return the moments of a step that may be its highest, of the model that `build` makes on `meta`.

    The step is a prompt, or the last part of one; of an encoder a text; of an encoder-decoder its source and
    a token of its answer.
    """
    model = _cut(build(), _FEW[0]).to(dtype)
    for path, module in list(model.named_modules()):
        if type(module) is nn.RMSNorm:
            model.set_submodule(path, _OnePass())

    def step(tokens: int, keys: int) -> Run:
        cache = (
            None if isinstance(model, Encoder) else Cache.empty(model, 1, keys, dtype=dtype, device="meta")
        )
        with torch.inference_mode():
            return _counted(_fullest, lambda: _step(model, torch.empty(1, tokens, dtype=torch.int64), cache))

    reads = isinstance(model, Encoder)
    return highest(*_fitted([(tokens, 0 if reads else keys) for tokens, keys in _POINTS], step))


def training(build: Build, *, lora: bool = False) -> tuple[tuple[Moment, ...], int]:
    """Return the moments of a forward and a backward pass, and how many parameters are trained.

    The loss is the cross-entropy of every token. lora: of adapters alone, of rank RANK, in place of all
    weights.
    """
    whole = _trained(build(), lora=lora)
    count = sum(parameter.numel() for parameter in set(whole.parameters()) if parameter.requires_grad)
    if isinstance(whole, EncoderDecoder) or not _is_even(whole) or len(whole.layers) <= _FEW[-1]:
        return learnt(whole), count
    # Layers that are all alike add the same to each moment; the third number of them tells whether they do.
    low, high, check = (learnt(_trained(_cut(build(), layers), lora=lora)) for layers in _FEW)
    if len(low) != len(high) or _further(low, high, 2) != check:
        return learnt(whole), count
    return _further(low, high, len(whole.layers) - _FEW[0]), count


def _trained(model: Model, *, lora: bool) -> Model:
    model.requires_grad_(not lora)
    if lora:
        with torch.device("meta"):
            swap(model, ADAPTED, lambda module: LoRA(module, rank=RANK, alpha=RANK))
    return model


def learnt(model: Model) -> tuple[Moment, ...]:
    """Return the moments of a forward and a backward pass that may be the highest, of a model on `meta`."""

    def step(tokens: int, keys: int) -> Run:
        model.zero_grad()
        return _counted(_even, lambda: _learn(model, torch.empty(1, tokens, dtype=torch.int64)))

    experts = max((len(module.experts) for module in model.modules() if isinstance(module, MoE)), default=1)
    polynomials, _ = _fitted([(tokens * experts, 0) for tokens in _ROWS], step)
    return highest(polynomials, {})


def _further(low: Sequence[Moment], high: Sequence[Moment], layers: int) -> tuple[Moment, ...]:
    """The moments of a model of so many more layers than `low`, of which `high` has one more."""
    pairs = zip(map(astuple, low), map(astuple, high), strict=True)
    return tuple(Moment(*(a + (b - a) * layers for a, b in zip(*pair, strict=True))) for pair in pairs)


def _is_even(model: Model) -> bool:
    """Whether a model is one stack of layers that are all alike, but for their place."""
    return not isinstance(model, EncoderDecoder) and len({_kind(layer) for layer in model.layers}) == 1


def _kind(layer: nn.Module) -> tuple[object, ...]:
    scores = [m.score for m in layer.modules() if isinstance(m, Attention)]
    return (str(layer), *((s.causal, s.window, s.softcap, s.bias, type(s.meeting)) for s in scores))


def _cut(model: Model, layers: int) -> Model:
    """Leave the first layers of a model whose layers are all alike: its step has the same moments."""
    if not isinstance(model, EncoderDecoder) and _is_even(model):
        model.layers = Blocks(list(model.layers)[:layers])
    return model


def _moment(row: Sequence[int], channels: int) -> Moment:
    fixed, token, key, pair, square = row
    return Moment(fixed, token, key, pair, square, channels)


def highest(rows: Sequence[Sequence[int]], channels: dict[int, int]) -> tuple[Moment, ...]:
    """Return those moments that are the highest for some number of tokens and keys."""
    every = list(dict.fromkeys(_moment(row, channels.get(i, 0)) for i, row in enumerate(rows)))
    grid = [(tokens, tokens * times) for tokens in _TOKENS for times in _TIMES]
    found = {
        max(every, key=lambda moment: moment.nbytes(tokens, keys, threads=threads))
        for tokens, keys in grid
        for threads in (1, 64)
    }
    return tuple(moment for moment in every if moment in found)


def _counted(experts: Callable[..., Tensor], step: Callable[[], None]) -> Run:
    """Run a step; return the bytes alive at each moment, and the channels of those within attention."""
    counted = Counted()
    fused = Fused(counted)
    with torch.device("meta"), _standing_in(experts), counted, fused:
        step()
    return counted.moments, fused.channels


def _learn(model: Model, ids: Tensor) -> None:
    """One step of next tokens, or of an encoder of hidden ones; of an encoder-decoder a text onto itself."""
    if isinstance(model, Encoder):
        states = model.hidden(ids, Full.of(ids))
        loss = model.head(states).float().mean()
    else:
        logits = model(ids, Full.of(ids, None, model.prompt(ids)))
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())
    loss.backward()


def _step(model: Model, ids: Tensor, cache: Cache | None) -> None:
    if isinstance(model, Encoder) or cache is None:
        model.hidden(ids, Full.of(ids))
        return
    prompt = model.prompt(ids)
    if isinstance(model, EncoderDecoder):
        ids = ids[:, :1]
    count = ids.shape[1]
    model(ids, Stream.at(cache, cache.capacity - count, count, prompt), (slice(None), -1)).float()


def _terms(tokens: int, keys: int) -> tuple[int, ...]:
    return 1, tokens, keys, tokens * keys, tokens * tokens


def _fitted(points: Sequence[tuple[int, int]], step: Callable[[int, int], Run]) -> Fit:
    """Solve for the polynomial of each moment. Raises ValueError where a run was another than the others."""
    runs = [step(*point) for point in points]
    if len({len(alive) for alive, _ in runs}) > 1:
        raise ValueError(f"the same step has {sorted({len(alive) for alive, _ in runs})} operations")
    # No keys: of a text that sees itself, tokens ** 2 says it all.
    used = (0, 1, 4) if not any(keys for _, keys in points) else (0, 1, 2, 3, 4)
    basis = [[_terms(*point)[i] for i in used] for point in points]
    inverse, share = _inverse(basis[: len(used)])
    values = np.array([alive for alive, _ in runs], dtype=object)  # Python's integers: these are exact
    found = np.array(inverse, dtype=object) @ values[: len(used)]
    if (np.array(basis, dtype=object) @ found != values * share).any():
        raise ValueError("the bytes of a moment are no polynomial of tokens and keys")
    rows = np.zeros((len(_terms(0, 0)), values.shape[1]), dtype=object)
    rows[list(used)] = -(-found // share)  # an expert's share of a token may be half a byte
    return [[int(value) for value in column] for column in rows.T], runs[0][1]


def _inverse(matrix: Sequence[Sequence[int]]) -> tuple[list[list[int]], int]:
    """Return integers and the number to divide them by, which together are the inverse of a matrix."""
    size = len(matrix)
    rows = [[*map(Fraction, row), *(Fraction(i == j) for j in range(size))] for i, row in enumerate(matrix)]
    for i in range(size):
        pivot = next(j for j in range(i, size) if rows[j][i])
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [x / rows[i][i] for x in rows[i]]
        for j in range(size):
            if j != i:
                rows[j] = [x - rows[j][i] * y for x, y in zip(rows[j], rows[i], strict=True)]
    share = lcm(*(x.denominator for row in rows for x in row[size:]))
    return [[int(x * share) for x in row[size:]] for row in rows], share


def _key(tensor: Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata
    return key
