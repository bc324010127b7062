"""A published difference and its base make a model: tensor by tensor, so that one is in memory at a time."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from ..errors import CheckpointError
from ..files.writing import Planned
from ..tensors import Use, some
from .arithmetic import Arithmetic, Total
from .sides import NAMES, Side, reordered

_ENDS = ("embed.weight", "head.weight")


@dataclass
class Combined:
    """What a difference and its base make.

    total: what its authors say that the weights sum to. wanted: the base that they name.
    """

    delta: Side
    base: Side
    how: Arithmetic
    total: Total | None = None
    wanted: str | None = None
    summed: float = 0.0
    _bases: dict[str, Use] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._bases = {ours: use for use in self.base.match.uses for ours in use.ours}

    def check(self) -> None:
        """Raise CheckpointError for another base than the difference is to, as far as shapes tell."""
        self.delta.check_floats("a difference")
        self.base.check_floats("its base")
        theirs, ours = self.base.shapes, self.delta.shapes
        needed = {name: shape for name, shape in ours.items() if self.how.combines(name)}
        if missing := [name for name in needed if name not in theirs]:
            raise self._wrong(f"lacks {len(missing)} tensor(s) that the difference is to: {some(missing)}")
        if self.how.combined == r".*" and (more := [name for name in theirs if name not in ours]):
            raise self._wrong(f"has {len(more)} tensor(s) that the difference lacks: {some(more)}")
        for name, shape in needed.items():
            grown = self.how.rows != "none" and name in _ENDS
            have = theirs[name]
            fits = have[1:] == shape[1:] and (have[0] <= shape[0] if grown else have == shape)
            if not fits:
                raise self._wrong(f"has {name} {list(have)}, and the difference makes it {list(shape)}")

    def planned(self) -> list[Planned]:
        """Return the tensors of the result, under the difference's names."""
        kind = NAMES[self.how.stored]
        return [
            Planned(entry.name, entry.shape, kind, partial(self._make, use, entry.name))
            for use in self.delta.match.uses
            for entry in self.delta.entries(use)
        ]

    def doubts(self) -> list[str]:
        """Return what tells of another base than the difference is to, where shapes do not."""
        a, b = self.delta.config.get("rms_norm_eps"), self.base.config
        eps = b.get("rms_norm_eps", b.get("norm_eps"))
        if a is None or eps is None or a == eps:
            return []
        return [f"the base says rms_norm_eps = {eps} and the difference {a}: is it {self.how.base} itself?"]

    def verdict(self) -> str | None:
        """Return what the sum of the weights says, after all were made; None where nobody published one."""
        if self.total is None:
            return None
        offsets = (0.0, _angles(self.delta.config)) if self.total.buffers else (0.0,)
        holds = any(abs(self.summed + more - self.total.value) <= self.total.tolerance for more in offsets)
        said = f"the weights sum to {self.summed:.4f}; their authors' sum to {self.total.value:.4f}"
        return f"{said}: as published" if holds else f"{said}: NOT as published; compare base and difference"

    def _make(self, use: Use, published: str) -> Tensor:
        shapes = self.delta.shapes
        parts = [
            self._part(ours, tensor, first=published == use.published[0])
            for ours, tensor in zip(use.ours, self.delta.read(use, shapes), strict=True)
        ]
        return use.join(parts, self.delta.model)[published]

    def _part(self, ours: str, tensor: Tensor, *, first: bool) -> Tensor:
        made = self.how(tensor, self._base(ours)) if self.how.combines(ours) else tensor
        if self.total is not None and first and re.fullmatch(self.total.of, ours):
            self.summed += made.double().sum().item()
        return made.to(self.how.stored)

    def _base(self, ours: str) -> Tensor:
        use = self._bases[ours]
        tensor = self.base.read(use, self.base.shapes)[use.ours.index(ours)]
        return reordered(tensor, ours, source=self.base.model, target=self.delta.model)

    def _wrong(self, reason: str) -> CheckpointError:
        sizes = self.delta.config
        layers, width = sizes.get("num_hidden_layers"), sizes.get("hidden_size")
        named = self.wanted or f"{self.how.base} with {layers} layers of width {width}"
        return CheckpointError(
            reason,
            file=self.base.checkpoint.path,
            remedy=f"The difference is to {named}: give that as --base",
        )


def _angles(config: Mapping[str, object]) -> float:
    """Return the sum of the rotary angles that files of early 2023 hold beside each layer's weights."""
    sizes = [config.get(key) for key in ("num_hidden_layers", "hidden_size", "num_attention_heads")]
    layers, width, heads = (size if isinstance(size, int) else 1 for size in sizes)
    dim = width // heads
    return layers * math.fsum(10_000.0 ** (-2 * i / dim) for i in range(dim // 2))
