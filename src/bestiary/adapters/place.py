"""Where an adapter's published names lie in a model: its family's tensor rules, and what files leave out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from torch import nn

from .. import families
from ..config import Config
from ..describe import describe
from ..families import llama, llama_native, mixtral
from ..families.heads import DECODERS
from ..load import Loaded
from ..tensors import Each, InRows, Match, Rules, Taps, Turned, Use, match


@dataclass(frozen=True)
class Names:
    """The names by which adapters know a model.

    foreign: whether they are those of a port, which keeps rotary pairs in halves, and the model does not.
    """

    rules: Rules
    foreign: bool

    @classmethod
    def of(cls, loaded: Loaded) -> Names:
        """Return those of a loaded model."""
        family = families.family(Config(loaded.config))
        if loaded.checkpoint.kind == "gguf":
            return cls({**DECODERS.rules, **_rules(family, loaded)}, foreign=True)
        if family.TENSORS is llama_native.TENSORS:
            return cls({**DECODERS.rules, **mixtral.TENSORS, **llama.TENSORS}, foreign=True)
        return cls({**DECODERS.rules, **describe(loaded.checkpoint, loaded.config)[1]}, foreign=False)

    def find(self, published: Iterable[str], model: nn.Module) -> tuple[dict[str, Use], tuple[str, ...]]:
        """Return for each published name of a tensor how ours is made of it, and the names without a place.

        Adapters of a bare model (AutoModel) lack the first part of each path that its head stands beside;
        those of a model with a head have it where a bare model's file does not.
        """
        names, wanted = list(published), _wanted(model)
        best: tuple[Mapping[str, str], Match] | None = None
        for spelled in self._spellings(names):
            found = match(self.rules, spelled, wanted)
            if best is None or len(found.stray) < len(best[1].stray):
                best = spelled, found
            if not found.stray:
                break
        if best is None:
            return {}, ()
        uses = {best[0][use.published[0]]: use for use in best[1].uses}
        return uses, tuple(best[0][name] for name in best[1].stray)

    def _spellings(self, names: list[str]) -> Iterable[dict[str, str]]:
        """Yield ways to spell the names, each as its spelling -> the name."""
        yield {name: name for name in names}
        paths = (path for source in self.rules for path in ((source,) if isinstance(source, str) else source))
        for root in dict.fromkeys(path.strip("[").partition(".")[0] for path in paths):
            yield {f"{root}.{name}": name for name in names}
            if any(name.startswith(f"{root}.") for name in names):
                yield {name.removeprefix(f"{root}."): name for name in names}


def _rules(family: families.Family, loaded: Loaded) -> Rules:
    return family.TENSORS(Config(loaded.config)) if callable(family.TENSORS) else family.TENSORS


def by_rows(use: Use) -> Use | None:
    """Return how rows for output channels (B, magnitudes) are cut as a matrix is; None where none can be.

    They are never turned: A and B of a Conv1D are stored as those of a Linear.
    """
    layout = use.layout.layout if isinstance(use.layout, Turned) else use.layout
    if isinstance(layout, Each | Taps | InRows) or len(use.published) > 1:
        return None
    return replace(use, layout=layout)


def _wanted(model: nn.Module) -> dict[str, object]:
    """Return the tensors that an adapter may name: the weight of every layer, whatever it is packed in."""
    named: dict[str, object] = {}
    for path, module in model.named_modules():
        layer = hasattr(module, "in_features") or hasattr(module, "num_embeddings")
        own = [*module._parameters, *module._buffers, *(["weight", "bias"] if layer else [])]
        # One identity for all: what an adapter does not name is not missing.
        named |= {f"{path}.{leaf}".lstrip("."): 0 for leaf in own}
    return named
