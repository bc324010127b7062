"""P-tuned prefixes of ChatGLM, which are published alone, put beside their base.

ptuning/trainer.py of THUDM/ChatGLM-6B saves only what was trained: transformer.prefix_encoder.*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..describe import describe, empty
from ..errors import CheckpointError
from ..files import Checkpoint, Entry, open_checkpoint
from ..files.writing import Planned
from ..tensors import match
from .sides import Side, identities

_NAMES = "prefix_encoder."
_TABLE = "transformer.prefix_encoder.embedding.weight"


def is_prefix(path: Path) -> bool:
    """Tell whether a folder or file holds the tensors of a prefix encoder, and no others."""
    try:
        return all(_NAMES in name for name in open_checkpoint(path).entries)
    except CheckpointError:
        return False


@dataclass
class Prefixed:
    """A base, and the prefix that all of its layers see."""

    whole: Side
    prefix: Checkpoint

    @classmethod
    def of(cls, path: Path, base: Path) -> Prefixed:
        """Open both. How many positions there are, and whether they are projected, the tensors tell.

        Raises as load does, for a prefix of another model too.
        """
        prefix, below = open_checkpoint(path), open_checkpoint(base)
        found: dict[str, Entry] = {}
        for name, entry in prefix.entries.items():
            full = f"transformer.{name.removeprefix('transformer.')}"
            found[full] = replace(entry, name=full)
        table = found.get(_TABLE)
        if table is None or len(table.shape) != 2:
            raise CheckpointError(
                "has no table of positions", file=path, tensor=_TABLE, remedy="Download the prefix again"
            )
        projected = any(".trans." in name for name in found)
        said = {"pre_seq_len": table.shape[0], "prefix_projection": projected}
        joined = Checkpoint(below.path, below.kind, {**below.entries, **found}, below.metadata, [])
        config, rules, build = describe(joined, said)
        model = empty(config, build)
        fit = match(rules, joined.entries, identities(model))
        fit.check(path)
        whole = Side(joined, config, model, fit)
        _check_shapes(whole, found)
        return cls(whole, prefix)

    @property
    def told(self) -> list[str]:
        positions = self.whole.config["pre_seq_len"]
        return [
            f"base        {self.whole.checkpoint.path}",
            f"prefix      {self.prefix.path}",
            f"            {positions} positions before every sequence; nothing is computed",
        ]

    @property
    def inputs(self) -> Mapping[str, list[Path]]:
        own = {entry.file for entry in self.prefix.entries.values()}
        files = {entry.file for entry in self.whole.checkpoint.entries.values()}
        return {"base": sorted(files - own), "prefix": sorted(own)}

    @property
    def tokenizers(self) -> list[Path]:
        return [self.whole.folder]

    def check(self) -> None:
        """What can be wrong was looked at as both were opened."""

    def planned(self) -> list[Planned]:
        held = [
            self.whole.checkpoint.entries[name] for use in self.whole.match.uses for name in use.published
        ]
        return [Planned(entry.name, entry.shape, entry.dtype, entry.read) for entry in held]

    def config(self) -> Mapping[str, object]:
        return self.whole.config

    def notes(self) -> list[str]:
        return []


def _check_shapes(side: Side, prefix: Mapping[str, Entry]) -> None:
    """Refuse a prefix that is not of the base's width and layers."""
    for use in side.match.uses:
        entry = prefix.get(use.published[0])
        if entry is not None and (wanted := side.shapes[use.ours[0]]) != entry.shape:
            raise CheckpointError(
                f"has shape {list(entry.shape)}, and the base makes it {list(wanted)}",
                file=entry.file,
                tensor=entry.name,
                remedy="It was trained on another base",
            )
