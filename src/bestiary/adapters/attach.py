"""Put adapters on a loaded model, take them off again, or add them to the weights for good."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from torch import nn

from ..load import Loaded
from .graft import Graft
from .lora import LoRA, LoRAEmbedding
from .peft import Adapter
from .weights import merged


@dataclass(frozen=True)
class Adapted(Loaded):
    """A loaded model with an adapter on it.

    before: as it was. replaced: the modules that others were put in the place of, by path, in order.
    """

    adapter: Adapter
    before: Loaded
    replaced: tuple[tuple[str, nn.Module], ...]


def attach(loaded: Loaded, adapter: Adapter) -> Adapted:
    """Put an adapter on a model, over whatever its weights are packed in, and over adapters before it.

    The model changes in place; what is returned tells of it, with the rows of its vocabulary where the
    adapter brings more. Raises CheckpointError for an adapter of another architecture or size, and for one
    that cannot be divided among the layers of this model; the model is then as it was.
    """
    graft = Graft(loaded, adapter)
    try:
        graft.bring()
        graft.add()
        config, found = graft.described()
    except BaseException:
        _restore(loaded.model, graft.replaced)
        raise
    told = {**_facts(loaded), "config": config, "match": found}
    return Adapted(**told, adapter=adapter, before=loaded, replaced=tuple(graft.replaced))


def detach(loaded: Loaded) -> Loaded:
    """Take every adapter off a model, the last first, and return it as it was loaded."""
    while isinstance(loaded, Adapted):
        _restore(loaded.model, loaded.replaced)
        loaded = loaded.before
    return loaded


def merge(loaded: Loaded) -> Loaded:
    """Add every adapter to the weights, in float32, each weight then rounded to its base's type.

    The result is a plain model, to be saved or adapted again; nothing can be taken off it. Raises
    RequestError for a base of packed integers: rounded to their few steps again, it would lose the adapter.
    """
    model = loaded.model
    made = {path: merged(path, model.get_submodule(path)) for path in adapted(model)}
    for path, module in made.items():
        model.set_submodule(path, module)
    return Loaded(**_facts(loaded))


def adapted(model: nn.Module) -> list[str]:
    """Return the paths of the layers that adapters add to; once, where there are several on one."""
    kinds = (LoRA, LoRAEmbedding)
    found = {path for path, module in model.named_modules() if isinstance(module, kinds)}
    return [path for path in sorted(found) if path.removesuffix(".base") == path or path[:-5] not in found]


def _facts(loaded: Loaded) -> dict[str, Any]:
    return {each.name: getattr(loaded, each.name) for each in fields(Loaded)}


def _restore(model: nn.Module, replaced: Iterable[tuple[str, nn.Module]]) -> None:
    for path, module in reversed(list(replaced)):
        model.set_submodule(path, module)
