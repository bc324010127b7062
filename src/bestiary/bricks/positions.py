"""Positions that act on queries and keys: rotary embeddings, and the ways to stretch them.

Nothing here holds a tensor: there is nothing to initialise on `meta`, to shard, to save or to cast.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from ..context import Context, Prompt
from ..errors import ConfigError, RequestError
from ..kernels.attention import Sight

# (q, k, ctx) -> (q, k), both (*L, heads, head_dim).
Position = Callable[[Tensor, Tensor, Context], tuple[Tensor, Tensor]]


def unmoved(q: Tensor, k: Tensor, ctx: Context) -> tuple[Tensor, Tensor]:
    """Leave queries and keys as they are: positions enter elsewhere, or nowhere."""
    return q, k


class Place(Protocol):
    """Where tokens stand, and how long their sequences are: of a Context, or of the keys in a cache."""

    @property
    def positions(self) -> Tensor: ...
    @property
    def lengths(self) -> Tensor: ...
    @property
    def prompt(self) -> Prompt | None: ...


def unread() -> RequestError:
    """Return the error of a position that needs the prompt, in a context that was not given it."""
    return RequestError(
        "this model's positions follow from the whole prompt: give the context prompt=model.prompt(tokens)"
    )


class Frequencies(Protocol):
    """How fast each pair of channels turns."""

    @property
    def magnitude(self) -> float:
        """A factor on the rotated channels."""
        ...

    def __call__(self, dim: int, base: float, ctx: Place) -> Tensor:
        """Return radians a position, float32: (dim / 2,), or (*L, dim / 2) where a length enters."""
        ...


def _periods(dim: int, base: float | Tensor, ctx: Place) -> Tensor:
    # In float32 and in this order, as every published implementation has it: at position 100,000 a last-bit
    # difference of a frequency is already 1e-2 radians.
    return base ** (torch.arange(0, dim, 2, device=ctx.positions.device).float() / dim)


def _turns(dim: int, base: float | Tensor, ctx: Place) -> Tensor:
    return 1.0 / _periods(dim, base, ctx)


@dataclass(frozen=True)
class Plain:
    """base ** (-2i / dim): Su et al., 2021, arXiv 2104.09864."""

    magnitude: float = 1.0

    def __call__(self, dim: int, base: float, ctx: Place) -> Tensor:
        return _turns(dim, base, ctx)


@dataclass(frozen=True)
class Interpolated:
    """Positions divided by a factor at every length: Chen et al., 2023, arXiv 2306.15595."""

    factor: float
    magnitude: float = 1.0

    def __call__(self, dim: int, base: float, ctx: Place) -> Tensor:
        return _turns(dim, base, ctx) / self.factor


@dataclass(frozen=True)
class DynamicNTK:
    """The base grows with the sequence once it is longer than trained.

    The frequencies are those of each sequence's own length at this step. Keys already in a cache keep the
    frequencies of their own step, as in the published implementation (transformers, modeling_rope_utils.py).
    """

    factor: float
    trained: int
    magnitude: float = 1.0

    def __call__(self, dim: int, base: float, ctx: Place) -> Tensor:
        length = ctx.lengths.clamp_min(self.trained)[..., None].float()  # (*L, 1)
        stretch = self.factor * length / self.trained - (self.factor - 1)
        return _turns(dim, base * stretch ** (dim / (dim - 2)), ctx)


@dataclass(frozen=True)
class Prompted:
    """The base grows by a factor that each sequence's prompt chose: Prompt.stretch.

    Later tokens keep it, so that all keys of a cache turn alike (Qwen-7B, modeling_qwen.py). Raises
    RequestError for a context without one.
    """

    magnitude: float = 1.0

    def __call__(self, dim: int, base: float, ctx: Place) -> Tensor:
        if ctx.prompt is None or ctx.prompt.stretch is None:
            raise unread()
        return _turns(dim, base * ctx.prompt.stretch[..., None] ** (dim / (dim - 2)), ctx)


@dataclass(frozen=True)
class NTKMixed:
    """Each turn divided by exp(a * i ** power), i from 1, which is the factor for the slowest: BlueLM-32K.

    vivo-ai-lab/BlueLM, example/vllm, rotary_embedding.py, after Su (kexue.fm/archives/9706).
    """

    factor: int
    power: float
    magnitude: float = 1.0

    def __call__(self, dim: int, base: float, ctx: Place) -> Tensor:
        turns = _turns(dim, base, ctx)
        steps: Tensor = torch.arange(1, dim // 2 + 1, device=turns.device).float() ** self.power
        return turns / torch.exp(math.log(self.factor) / float(dim // 2) ** self.power * steps)


@dataclass(frozen=True)
class Llama3:
    """Slow turns divided by a factor, fast ones kept, a ramp between: Llama 3.1 (llama-models, model.py)."""

    factor: float
    low: float
    high: float
    trained: int
    magnitude: float = 1.0

    def __call__(self, dim: int, base: float, ctx: Place) -> Tensor:
        turns = _turns(dim, base, ctx)
        wavelength = 2 * math.pi / turns
        smooth = (self.trained / wavelength - self.low) / (self.high - self.low)
        ramp = (1 - smooth) * turns / self.factor + smooth * turns
        slow = torch.where(wavelength > self.trained / self.low, turns / self.factor, turns)
        between = (wavelength <= self.trained / self.low) & (wavelength >= self.trained / self.high)
        return torch.where(between, ramp, slow)


@dataclass(frozen=True)
class LongRope:
    """Each turn divided by a factor of its own, from another set once the sequence is longer than trained.

    Ding et al., 2024, arXiv 2402.13753, as Phi-3 has it. Keys already in a cache keep the factors of their
    own step: say how long a sequence will be (Prompt.length) before it grows past the trained length.
    """

    short: tuple[float, ...]
    long: tuple[float, ...]
    trained: int
    magnitude: float

    def __call__(self, dim: int, base: float, ctx: Place) -> Tensor:
        short, long = (torch.tensor(each, device=ctx.positions.device) for each in (self.short, self.long))
        factors = torch.where((ctx.lengths > self.trained)[..., None], long, short)  # (*L, dim / 2)
        return 1.0 / (factors * _periods(dim, base, ctx))


@dataclass(frozen=True)
class Yarn:
    """Slow turns divided by a factor, fast ones kept, by how often they turn in the trained length.

    Peng et al., 2023, arXiv 2309.00071. whole: the ramp's ends are rounded outwards to whole channels, as
    published.
    """

    factor: float
    trained: int
    magnitude: float
    fast: float = 32.0
    slow: float = 1.0
    whole: bool = True

    def __call__(self, dim: int, base: float, ctx: Place) -> Tensor:
        turns = _turns(dim, base, ctx)
        low, high = self._channel(self.fast, dim, base), self._channel(self.slow, dim, base)
        if self.whole:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, dim - 1)
        if low == high:
            high += 0.001  # the published guard against dividing by zero
        ramp = ((torch.arange(dim // 2, device=turns.device).float() - low) / (high - low)).clamp(0, 1)
        return turns / self.factor * ramp + turns * (1 - ramp)

    def _channel(self, rotations: float, dim: int, base: float) -> float:
        return dim * math.log(self.trained / (rotations * 2 * math.pi)) / (2 * math.log(base))


@dataclass(frozen=True)
class Factors:
    """Each turn divided by a factor of its own: what GGUF files store as `rope_freqs`."""

    factors: tuple[float, ...]
    magnitude: float = 1.0

    def __call__(self, dim: int, base: float, ctx: Place) -> Tensor:
        return _turns(dim, base, ctx) / torch.tensor(self.factors, device=ctx.positions.device)


@dataclass(frozen=True)
class Rotary:
    """Rotate pairs of the first `dim` channels of q and k by position.

    interleaved: a pair is two neighbours (GPT-J, Meta's and GGUF's Llama) instead of channels i and i + dim /
    2 (GPT-NeoX, Hugging Face's Llama). A parameter of the brick rather than a permutation of weights at load,
    which would have to reach biases, norms, LoRA and packed integers, and be undone on save.
    """

    dim: int
    base: float = 10_000.0
    interleaved: bool = field(default=False, kw_only=True)
    frequencies: Frequencies = field(default=Plain(), kw_only=True)

    def __post_init__(self) -> None:
        if self.dim < 2 or self.dim % 2:
            raise ConfigError(f"rotary positions need an even number of channels a head, not {self.dim}")

    def __call__(self, q: Tensor, k: Tensor, ctx: Context) -> tuple[Tensor, Tensor]:
        cos, sin = ctx.once(self, lambda: self.angles(ctx))
        return self.turn(q, cos, sin), self.turn(k, cos, sin)

    def angles(self, ctx: Place, positions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return cos and sin of this step, float32 (*L, 1, dim / 2): the same for every layer and head.

        positions: where the tokens stand to this rotation, if that is not where they stand in the sequence.
        """
        turns = self.frequencies(self.dim, self.base, ctx)
        places = ctx.positions if positions is None else positions
        angle = (places[..., None].float() * turns)[..., None, :]
        return angle.cos() * self.frequencies.magnitude, angle.sin() * self.frequencies.magnitude

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return x (*L, heads, head_dim) with its pairs rotated, computed in float32."""
        head = x[..., : self.dim].float()
        a, b = (head[..., ::2], head[..., 1::2]) if self.interleaved else head.chunk(2, -1)
        pair = (a * cos - b * sin, b * cos + a * sin)
        turned = torch.stack(pair, -1).flatten(-2) if self.interleaved else torch.cat(pair, -1)
        turned = turned.to(x.dtype)
        return turned if self.dim == x.shape[-1] else torch.cat((turned, x[..., self.dim :]), -1)


@dataclass(frozen=True)
class Slowed:
    """Rotate by positions that are divided by a factor first: ChatGLM2-6B-32K.

    Interpolated's equation in another order, which float32 tells from it: from position 9,000 on by 4e-3 of a
    logit, for factors that are no power of two.
    """

    rotary: Rotary
    factor: float

    def __call__(self, q: Tensor, k: Tensor, ctx: Context) -> tuple[Tensor, Tensor]:
        cos, sin = ctx.once(self, lambda: self.rotary.angles(ctx, ctx.positions / self.factor))
        return self.rotary.turn(q, cos, sin), self.rotary.turn(k, cos, sin)


@dataclass(frozen=True)
class XPos:
    """Rotate, and let queries shrink and keys grow with position: the faster a pair turns, the more.

    Together they multiply a pair's share of q.k by scale ** (distance / base), a scale for each pair: Sun et
    al., 2022, arXiv 2212.10554. Positions count from 0 at every length, as only their difference matters.
    """

    rotary: Rotary
    base: float = 512.0

    def __call__(self, q: Tensor, k: Tensor, ctx: Context) -> tuple[Tensor, Tensor]:
        of_q, of_k = ctx.once(self, lambda: self._angles(ctx))
        return self.rotary.turn(q, *of_q), self.rotary.turn(k, *of_k)

    def _angles(self, ctx: Context) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return scaled cos and sin for queries and for keys, float32 (*L, 1, dim / 2)."""
        cos, sin = self.rotary.angles(ctx)
        dim = self.rotary.dim
        # 0.4 is the paper's gamma: the slowest pair keeps nearly all of a score, the fastest 2/7 a base.
        scale = (torch.arange(0, dim, 2, device=cos.device) + 0.4 * dim) / (1.4 * dim)
        grown = (scale ** (ctx.positions[..., None].float() / self.base))[..., None, :]
        return (cos * grown, sin * grown), (cos / grown, sin / grown)


@dataclass(frozen=True)
class LogN:
    """Another position, then queries times log(place) / log(trained) beyond the trained length, place from 1.

    The entropy of attention stays what it was (Su, kexue.fm/archives/8823; Qwen, arXiv 2309.16609).
    """

    position: Position
    trained: int

    def __call__(self, q: Tensor, k: Tensor, ctx: Context) -> tuple[Tensor, Tensor]:
        q, k = self.position(q, k, ctx)
        return q * ctx.once(self, lambda: self._factor(ctx)).to(q.dtype), k

    def _factor(self, ctx: Context) -> Tensor:
        places = (ctx.positions + 1).clamp_min(self.trained).float()  # (*L)
        return (places.log() / math.log(self.trained))[..., None, None]


@dataclass(frozen=True)
class _Standing:
    positions: Tensor
    lengths: Tensor
    prompt: Prompt | None = None


@dataclass(frozen=True)
class Met:
    """Rotate queries and keys where they meet, by frequencies that all keys share: a Score's `meeting`.

    InternLM's cache holds keys without positions, so that a longer sequence turns the earlier keys anew
    (InternEvo, modeling_internlm.py). Costs a rotation of every key at every step.
    """

    rotary: Rotary

    def __call__(self, q: Tensor, k: Tensor, sight: Sight) -> tuple[Tensor, Tensor]:
        if self not in sight.remembered:  # once a step, for all layers
            lengths = sight.q_pos.amax(-1, keepdim=True) + 1 if sight.lengths is None else sight.lengths
            places = (_Standing(positions, lengths) for positions in (sight.q_pos, sight.k_pos))
            sight.remembered[self] = [self.rotary.angles(place) for place in places]
        of_q, of_k = sight.remembered[self]
        return self.rotary.turn(q, *of_q), self.rotary.turn(k, *of_k)
