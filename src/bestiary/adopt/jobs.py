"""What adopting can be: a difference and its base, a base and its adapters, weights in another form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from torch import Tensor

from .. import adapters
from ..adapters import Adapter
from ..describe import empty
from ..errors import RequestError
from ..files import Checkpoint
from ..files.writing import Planned
from ..formats import FORMATS
from ..load import Loaded, load
from ..models import Model
from ..tensors import Rules, Use
from . import adapted
from .arithmetic import TOTALS, Arithmetic
from .deltas import Combined
from .sides import FLOATS, Side, port, reordered, uses


class Job(Protocol):
    """One way to make a folder that every program reads."""

    @property
    def told(self) -> list[str]:
        """What was found and will be done, a line each."""
        ...

    @property
    def inputs(self) -> Mapping[str, list[Path]]:
        """The files that it is made of, by what they are."""
        ...

    @property
    def tokenizers(self) -> list[Path]:
        """Folders that may hold the tokenizer, best first."""
        ...

    def check(self) -> None:
        """Raise what is wrong, before a byte is written."""
        ...

    def planned(self) -> list[Planned]:
        """Return the tensors, each to be made when it is written."""
        ...

    def config(self) -> Mapping[str, object]:
        """Return the config.json."""
        ...

    def notes(self) -> list[str]:
        """Return what is to be said once all tensors were written."""
        ...


@dataclass
class Difference:
    """A published difference and the base that it is to."""

    combined: Combined
    how: str

    @classmethod
    def of(cls, source: Path, base: Path, *, name: str, how: str, arithmetic: Arithmetic) -> Difference:
        """Open both. name: of the checkpoint as it was published. Raises as load does."""
        total = next((total for known, total in TOTALS.items() if known.lower() == name.lower()), None)
        return cls(Combined(Side.open(source), Side.open(base), arithmetic, total), how)

    @property
    def told(self) -> list[str]:
        c, arithmetic = self.combined, self.combined.how
        rows = {"zeros": "; rows that the base lacks are zeros", "mean": "; rows it lacks are its mean"}
        sign = "+" if arithmetic.sign > 0 else "-"
        which = "every tensor" if arithmetic.combined == r".*" else "some tensors, the others as they are"
        kind = str(arithmetic.dtype).removeprefix("torch.")
        return [
            f"difference  {c.delta.checkpoint.path}",
            f"base        {c.base.checkpoint.path}",
            f"arithmetic  {self.how}: difference {sign} base, in {kind}",
            f"            {which}{rows.get(arithmetic.rows, '')}",
            f"            {arithmetic.script}",
            *(f"doubt       {doubt}" for doubt in c.doubts()),
        ]

    @property
    def inputs(self) -> Mapping[str, list[Path]]:
        return {
            "difference": _files(self.combined.delta.checkpoint),
            "base": _files(self.combined.base.checkpoint),
        }

    @property
    def tokenizers(self) -> list[Path]:
        delta, base = self.combined.delta, self.combined.base
        same = delta.shapes.get("embed.weight") == base.shapes.get("embed.weight")
        return [delta.folder, base.folder] if same else [delta.folder]

    def check(self) -> None:
        self.combined.check()

    def planned(self) -> list[Planned]:
        return self.combined.planned()

    def config(self) -> Mapping[str, object]:
        said = dict(self.combined.delta.config)
        kind = str(self.combined.how.stored).removeprefix("torch.")
        return said | {key: kind for key in ("torch_dtype", "dtype") if key in said}

    def notes(self) -> list[str]:
        verdict = self.combined.verdict()
        return [] if verdict is None else [verdict]


@dataclass
class Merging:
    """A base, and adapters that are merged into it in order."""

    loaded: Loaded
    read: Sequence[Adapter]

    @classmethod
    def of(cls, base: Path, folders: Sequence[Path]) -> Merging:
        """Load the base and put the adapters on it. Raises as load and adapters.attach do."""
        loaded, read = load(base, dtype="float32", check_finite=False), [adapters.read(f) for f in folders]
        for adapter in read:
            loaded = adapters.attach(loaded, adapter)
        return cls(loaded, read)

    @property
    def told(self) -> list[str]:
        lines = [f"base        {self.loaded.checkpoint.path}"]
        for adapter in self.read:
            brought = f", {len(adapter.whole)} tensors whole" if adapter.whole else ""
            lines += [
                f"adapter     {adapter.path}",
                f"            {adapter.parameters:,} parameters: {len(adapter.factors)} layers{brought}",
            ]
        return [*lines, "arithmetic  added in float32, rounded to the base's type"]

    @property
    def inputs(self) -> Mapping[str, list[Path]]:
        found = {"base": _files(self.loaded.checkpoint)}
        for number, adapter in enumerate(self.read, 1):
            found[f"adapter {number}"] = sorted(
                f for f in adapter.path.iterdir() if f.name.startswith("adapter_")
            )
        return found

    @property
    def tokenizers(self) -> list[Path]:
        path = self.loaded.checkpoint.path
        return [*(adapter.path for adapter in reversed(self.read)), path if path.is_dir() else path.parent]

    def check(self) -> None:
        adapted.planned(self.loaded)

    def planned(self) -> list[Planned]:
        return adapted.planned(self.loaded)

    def config(self) -> Mapping[str, object]:
        return self.loaded.config

    def notes(self) -> list[str]:
        return []


@dataclass
class Telling:
    """The same weights under the names that are published on the hub, in safetensors."""

    side: Side
    _ported: tuple[Mapping[str, object], Rules] | None = field(init=False)

    def __post_init__(self) -> None:
        self._ported = port(self.side)

    @property
    def told(self) -> list[str]:
        names = "under the names of Hugging Face's port" if self._ported else "under their own names"
        kinds = {entry.dtype for entry in self.side.checkpoint.entries.values()} & FORMATS.keys()
        packed = ", ".join(sorted(kinds - FLOATS.keys()))
        widened = f"{packed} is widened and rounded to float16" if packed else "no number changes"
        return [
            f"weights     {self.side.checkpoint.path} ({self.side.checkpoint.kind})",
            f"written     as safetensors, {names}; {widened}",
        ]

    @property
    def inputs(self) -> Mapping[str, list[Path]]:
        return {"weights": _files(self.side.checkpoint)}

    @property
    def tokenizers(self) -> list[Path]:
        folder = self.side.folder
        return [folder, folder.parent]  # Meta's lies beside the folders of all sizes

    def check(self) -> None:
        if self._ported is None and self.side.checkpoint.kind == "safetensors":
            raise RequestError(
                f"{self.side.checkpoint.path} is in the form that every program reads already\n"
                "Try: --adapter to merge an adapter into it, or --base and --how if it is a difference"
            )
        scaling = self.side.config.get("rope_scaling")
        if isinstance(scaling, dict) and scaling.get("rope_type") == "factors":
            raise RequestError(
                f"{self.side.checkpoint.path} has its rotary factors as a tensor, which no config.json says\n"
                "Try: the model in the form that it was converted from"
            )

    def planned(self) -> list[Planned]:
        if self._ported is not None:
            return list(self._renamed(*self._ported))
        held = {name for use in self.side.match.uses for name in use.published}
        entries = (entry for name, entry in self.side.checkpoint.entries.items() if name in held)
        return [Planned(entry.name, entry.shape, entry.dtype, entry.read) for entry in entries]

    def config(self) -> Mapping[str, object]:
        said = self.side.config if self._ported is None else self._ported[0]
        return {key: value for key, value in said.items() if value is not None}

    def notes(self) -> list[str]:
        return []

    def _renamed(self, config: Mapping[str, object], rules: Rules) -> Iterator[Planned]:
        target = empty(config)
        sources = {ours: use for use in self.side.match.uses for ours in use.ours}
        for use in uses(rules, target):
            first = use.ours[0]
            dtype = self.side.entries(sources[first])[0].dtype
            kind = dtype if dtype in FLOATS else "F16"
            shape = self.side.shapes[first]
            for name in use.published:
                yield Planned(name, shape, kind, partial(self._make, use, name, sources, target))

    def _make(self, use: Use, name: str, sources: Mapping[str, Use], target: Model) -> Tensor:
        parts = []
        for ours in use.ours:
            source = sources[ours]
            tensor = self.side.read(source, self.side.shapes)[source.ours.index(ours)]
            parts.append(reordered(tensor, ours, source=self.side.model, target=target))
        return use.join(parts, target)[name]


def _files(checkpoint: Checkpoint) -> list[Path]:
    files = {entry.file for entry in checkpoint.entries.values()}
    folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    files |= {folder / name for name in ("config.json", "params.json") if (folder / name).is_file()}
    return sorted(files)
