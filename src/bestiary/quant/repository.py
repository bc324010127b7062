"""Which linear layers a repository holds packed, and how: its quantization_config, and its tensors' names.

GPTQ, AWQ and bitsandbytes each replace linear layers one for one, whatever the model; so no family knows of
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from ..config import Config
from ..errors import CheckpointError, ConfigError
from ..files import Checkpoint, Entry
from ..files.paths import read_json
from ..models import Model
from ..tensors import Drop, Layout, Rules, Same, Turned, places
from .awq import AWQ
from .bnb import BitsAndBytes4, BitsAndBytes8
from .gptq import GPTQ

__all__ = ["KEY", "packed", "said"]

KEY = "quantization_config"
Build = Callable[[Config], Model]

# The files of AutoGPTQ, and of AWQ's authors, beside a config.json that says nothing.
_GPTQ_FILE, _AWQ_FILE = "quantize_config.json", "quant_config.json"


class _Packing(Protocol):
    """How a repository was packed.

    signs: what packed layers alone have. leaves: what the file calls each tensor of a layer -> what we call
    it.
    """

    signs: ClassVar[tuple[str, ...]]
    leaves: ClassVar[Mapping[str, str]]

    def layer(self, linear: nn.Linear, held: Mapping[str, Entry]) -> nn.Module:
        """Return what replaces a linear layer; held: its tensors in the file, by our names."""
        ...


def _bitsandbytes(c: Config) -> _Packing:
    four = c.flag("load_in_4bit", False)
    if four == c.flag("load_in_8bit", False):
        raise ConfigError(f"{c.where}: load_in_4bit and load_in_8bit should not both be {str(four).lower()}")
    return BitsAndBytes4.read(c) if four else BitsAndBytes8.read(c)


METHODS: Mapping[str, Callable[[Config], _Packing]] = {
    "gptq": GPTQ.read,
    "awq": AWQ.read,
    "bitsandbytes": _bitsandbytes,
}


def said(config: Mapping[str, object], checkpoint: Checkpoint) -> dict[str, object]:
    """Return a published config.json with the quantization_config that is true of its checkpoint.

    It may lie in a file of its own, or nowhere; and one of bitsandbytes, left from training, may stand over
    weights that are not packed. Raises ConfigError for a file beside that is damaged.
    """
    config, names = dict(config), checkpoint.entries
    if not any(_stems(names, how.signs) for how in (GPTQ, BitsAndBytes4, BitsAndBytes8)):
        found = config.get(KEY)
        if isinstance(found, dict) and found.get("quant_method", "bitsandbytes") == "bitsandbytes":
            del config[KEY]
        return config
    # MOSS's own config.json says so in other keys, which its family reads.
    if config.get(KEY) is None and "wbits" not in config:
        folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
        config[KEY] = _beside(folder, checkpoint.entries)
    return config


def _beside(folder: Path, entries: Mapping[str, Entry]) -> dict[str, object]:
    """Return the quantization_config of a repository whose config.json has none."""
    if (folder / _GPTQ_FILE).is_file():
        return {"quant_method": "gptq", **read_json(folder / _GPTQ_FILE)}
    if (folder / _AWQ_FILE).is_file():
        c = Config(read_json(folder / _AWQ_FILE), _AWQ_FILE)
        spelled = {
            "bits": "w_bit",
            "group_size": "q_group_size",
            "zero_point": "zero_point",
            "version": "version",
        }
        return {
            "quant_method": "awq",
            **{ours: c.get(theirs) for ours, theirs in spelled.items() if theirs in c},
        }
    if _stems(entries, GPTQ.signs):
        return {"quant_method": "gptq"}  # GPTQ-for-LLaMa's: the tensors' shapes say the rest
    four = bool(_stems(entries, BitsAndBytes4.signs))
    return {"quant_method": "bitsandbytes", "load_in_4bit": four, "load_in_8bit": not four}


def _stems(names: Iterable[str], signs: Iterable[str]) -> list[str]:
    """Return the published paths of the layers that are packed, each once."""
    ends = tuple(f".{sign}" for sign in signs)
    found = ((name, end) for name in names for end in ends if name.endswith(end))
    return list(dict.fromkeys(name.removesuffix(end) for name, end in found))


def packed(rules: Rules, build: Build, entries: Mapping[str, Entry]) -> tuple[Rules, Build]:
    """Return a family's rules and what builds its model, for a repository that packs its linear layers.

    entries: the checkpoint's; where there are none, every linear layer of a block but routers is packed, as
    all three programs do unless told otherwise.
    """

    def build_packed(c: Config) -> Model:
        section = c.section(KEY)
        if section is None:
            raise ConfigError(f"{c.where}: {KEY} is gone")
        how, model = _read(section), build(c)
        found = list(_layers(how, rules, entries)) if entries else _usual(model)
        if not found:
            raise ConfigError(
                f"{section.where} says that layers are packed, and no tensor of the file is packed so; take "
                "the key out if these are plain weights"
            )
        for path, held in found:
            if (linear := _linear(model, path)) is not None:
                model.set_submodule(path, how.layer(linear, held))
        return model

    return {**rules, **_renamed(rules)}, build_packed


def _read(section: Config) -> _Packing:
    # bitsandbytes' first files, of spring 2023, do not say whose they are.
    method = section.text("quant_method", "bitsandbytes")
    if method not in METHODS:
        known = ", ".join(METHODS)
        raise ConfigError(f"{section.where}: quant_method = {method[:80]!r} is not read here; known: {known}")
    return METHODS[method](section)


def _layers(
    how: _Packing, rules: Rules, entries: Mapping[str, Entry]
) -> Iterator[tuple[str, Mapping[str, Entry]]]:
    """Yield the path of each of our layers that is packed, and its tensors in the file."""
    stems = _stems(entries, how.signs)
    ours = places(rules, [f"{stem}.weight" for stem in stems])
    for stem in stems:
        held = {
            leaf: entries[f"{stem}.{theirs}"]
            for theirs, leaf in how.leaves.items()
            if f"{stem}.{theirs}" in entries
        }
        for name in ours.get(f"{stem}.weight", ()):
            yield name.removesuffix(".weight"), held


def _usual(model: Model) -> list[tuple[str, Mapping[str, Entry]]]:
    parts = ((path, module) for path, module in model.named_modules() if isinstance(module, nn.Linear))
    return [(path, {}) for path, _ in parts if "layers." in path and not path.endswith(".route")]


def _linear(model: Model, path: str) -> nn.Linear | None:
    """Return a linear layer of the model; None for a path that it lacks, which is then a tensor too many."""
    try:
        module = model.get_submodule(path)
    except AttributeError:
        return None
    if isinstance(module, nn.Linear):
        return module
    raise CheckpointError(
        f"is packed in the file, and {type(module).__name__} weights are not read so here",
        tensor=path,
        remedy="Ask for a version of the model whose embeddings and norms are not packed",
    )


def _renamed(rules: Rules) -> Rules:
    """Return rules for the tensors whose names in the file have a dot in them, beside the family's."""
    dotted = {theirs: ours for theirs, ours in BitsAndBytes4.leaves.items() if "." in theirs}
    found: dict[str | tuple[str, ...], str | Layout | Drop] = {}
    for source, target in rules.items():
        paths = (source,) if isinstance(source, str) else source
        if isinstance(target, Drop) or any(":" in path for path in paths):
            continue
        for theirs, ours in dotted.items():
            spelled = tuple(f"{path}:{theirs}" for path in paths)
            key: Any = spelled[0] if isinstance(source, str) else spelled
            layout = Same(target) if isinstance(target, str) else target
            found[key] = _Renamed(layout.layout if isinstance(layout, Turned) else layout, ours)
    return found


@dataclass(frozen=True)
class _Renamed:
    """A layout of the tensors that our modules call by another name than the file."""

    inner: Layout
    leaf: str

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(f"{path}:{self.leaf}" for path in self.inner.targets)

    def split(self, whole: Tensor, shapes: Sequence[tuple[int, ...]], heads: int) -> list[Tensor]:
        return self.inner.split(whole, shapes, heads)

    def join(self, parts: Sequence[Tensor], heads: int) -> Tensor:
        return self.inner.join(parts, heads)
