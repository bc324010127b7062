"""One adapter on its way onto a model: what it brings whole, what it adds to, and what the model then is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import CheckpointError
from ..load import Loaded
from ..tensors import Match, Use, some
from .dora import DoRA
from .ends import ENDS, described, tied
from .lora import LoRA, LoRAEmbedding
from .pairs import neighbours
from .peft import Adapter, Factors
from .place import Names, by_rows
from .weights import clone, columns, holding, rows, shape


class Graft:
    """The work of attaching. replaced: the modules that others were put in the place of, in order."""

    def __init__(self, loaded: Loaded, adapter: Adapter) -> None:
        self.loaded, self.model, self.adapter = loaded, loaded.model, adapter
        self.names = Names.of(loaded)
        self.replaced: list[tuple[str, nn.Module]] = []
        self._tied = tied(self.model)
        self._brought: list[Use] = []

    def bring(self) -> None:
        """Put the tensors that the adapter brings whole in place of the base's."""
        uses, stray = self.names.find(self.adapter.whole, self.model)
        self._check(stray)
        for name, use in uses.items():
            self._bring(name, use, self.adapter.whole[name])
            self._brought.append(use)

    def add(self) -> None:
        """Wrap the layers that the adapter adds products to."""
        wanted = {f"{path}.weight": path for path in self.adapter.factors}
        uses, stray = self.names.find(wanted, self.model)
        self._check(wanted[name] for name in stray)
        for name, use in uses.items():
            self._add(wanted[name], use, self.adapter.factors[wanted[name]])

    def described(self) -> tuple[Mapping[str, object], Match]:
        """Return the config of the model as it is now, and the names of its tensors.

        Raises CheckpointError for a vocabulary that grew in one place only.
        """
        return described(
            self.loaded, self._brought, self.names.rules, were_tied=self._tied, adapter=self.adapter
        )

    def _bring(self, name: str, use: Use, tensor: Tensor) -> None:
        targets = [shape(self.model, ours) for ours in use.ours]
        judges = name.endswith("score.weight")
        # An embedding, its head and what judges a text have as many rows as the adapter brings.
        if use.ours[0] in ENDS and tensor.ndim == 2 and tensor.shape[1] == targets[0][1]:
            if tensor.shape[0] < targets[0][0] and not judges:
                most = targets[0][0]
                raise self._misfit(name, f"has {tensor.shape[0]:,} rows, fewer than the base's {most:,}")
            targets = [tuple(tensor.shape)]
        parts = _cut(use, tensor, self.model, targets)
        if parts is None:
            made = " and ".join(str(list(size)) for size in targets)
            raise self._misfit(name, f"has shape {list(tensor.shape)}, and the base makes it {made}")
        for ours, part in zip(use.ours, parts, strict=True):
            path, _, leaf = ours.rpartition(".")
            self._put(path, self._with(path, leaf, self._ordered(part, ours)))

    def _with(self, path: str, leaf: str, value: Tensor) -> nn.Module:
        """Return a module like the one at a path, with another tensor; of one with an adapter, its base's."""
        module = self.model.get_submodule(path)
        if not isinstance(module, LoRA | LoRAEmbedding):
            return holding(module, leaf, value, self.loaded.dtype)
        outer = clone(module)
        outer.base = holding(module.base, leaf, value, self.loaded.dtype)
        return outer

    def _add(self, path: str, use: Use, factors: Factors) -> None:
        modules = [self.model.get_submodule(ours.removesuffix(".weight")) for ours in use.ours]
        wide, out = (factors.b, factors.a.T) if factors.embedding else (factors.a.T, factors.b)
        sizes, cut = [rows(module) or 0 for module in modules], by_rows(use)
        fits = sum(sizes) == len(out) and all(columns(module) == len(wide) for module in modules)
        tables = any(hasattr(module, "num_embeddings") for module in modules)
        if cut is None or not fits or tables != factors.embedding:
            whole = " and ".join(f"{type(m).__name__}({columns(m)}, {rows(m)})" for m in modules)
            reason = f"adapts a layer of {len(wide)} to {len(out)} channels, and the base has {whole} there"
            raise self._misfit(path, reason)
        paths = [ours.removesuffix(".weight") for ours in use.ours]
        if factors.embedding:
            how: dict[str, Any] = {"scale": factors.scale, "dtype": self.loaded.dtype}
            self._put(paths[0], LoRAEmbedding.of(modules[0], factors.a, factors.b, **how))
            return
        for where, made in zip(paths, self._layers(cut, modules, factors, sizes), strict=True):
            self._put(where, made)

    def _layers(
        self, cut: Use, modules: Sequence[nn.Module], factors: Factors, sizes: Sequence[int]
    ) -> list[LoRA]:
        """Return adapted layers: of a fused one, each with its rows of B, and all with one A."""
        how: dict[str, Any] = {"scale": factors.scale, "dtype": self.loaded.dtype}
        bs = self._rows(cut, factors.b, sizes)
        if factors.magnitude is None:
            made = [LoRA.of(base, factors.a, b, **how) for base, b in zip(modules, bs, strict=True)]
        else:
            parts = zip(modules, bs, self._rows(cut, factors.magnitude, sizes), strict=True)
            made = [DoRA.of(base, factors.a, b, lengths=length, **how) for base, b, length in parts]
        for layer in made:
            layer.lora_A.weight = made[0].lora_A.weight
        return made

    def _rows(self, cut: Use, whole: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """Cut what has a row for each output channel, in the order of our layers' rows."""
        parts = cut.split([whole], self.model, [(size, *whole.shape[1:]) for size in sizes])
        return [self._ordered(part, ours) for part, ours in zip(parts, cut.ours, strict=True)]

    def _ordered(self, part: Tensor, ours: str) -> Tensor:
        return neighbours(part, self.model, ours) if self.names.foreign else part

    def _put(self, path: str, module: nn.Module) -> None:
        before = self.model.get_submodule(path)
        self.replaced.append((path, before))
        self.model.set_submodule(path, module.train(before.training))

    def _check(self, stray: Iterable[str]) -> None:
        if names := list(stray):
            kind = self.loaded.config.get("model_type", type(self.model).__name__)
            raise CheckpointError(
                f"adapts {len(names)} place(s) that the base ({kind}) does not have: {some(names)}",
                file=self.adapter.path,
                remedy=_remedy(self.adapter),
            )

    def _misfit(self, tensor: str, reason: str) -> CheckpointError:
        return CheckpointError(reason, file=self.adapter.path, tensor=tensor, remedy=_remedy(self.adapter))


def _remedy(adapter: Adapter) -> str:
    made = f" ({adapter.base})" if adapter.base else ""
    return f"Attach it to the base that it was made for{made}"


def _cut(
    use: Use, tensor: Tensor, model: nn.Module, targets: Sequence[tuple[int, ...]]
) -> list[Tensor] | None:
    """Cut a published tensor into ours of the shapes given; None where it does not fit."""
    try:
        parts = use.split([tensor], model, targets)
    except (ValueError, RuntimeError):
        return None
    return parts if [tuple(part.shape) for part in parts] == list(targets) else None
