"""Adapters beside one model, of which each row of a forward pass has its own or none: a batch of many users.

Chen et al., 2023, "Punica", arXiv 2310.18547. A layer is called with its rows and with nothing else, so which
adapter a row has is said by an object that the caller and the layers hold (docs/decisions/009).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, RequestError
from ..load import Loaded
from ..models import Decoder
from .attach import Adapted, attach, detach
from .lora import LoRA
from .peft import read

MOST = 64
"""Adapters beside a model at once."""


class Rows:
    """Which adapter each row of a forward pass has; said for a while, by `Mix.rows`."""

    def __init__(self) -> None:
        self.count, self.groups = 0, dict[str, Tensor]()


class Mixed(nn.Module):
    """base(x), and for the rows of each adapter its scale * B A x. x (rows, in_features).

    Raises RequestError for another number of rows than was said.
    """

    def __init__(self, base: nn.Module, rows: Rows) -> None:
        super().__init__()
        linear: Any = base
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.base, self._rows = base, rows
        self.parts = dict[str, LoRA]()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x)
        if self._rows.groups and len(x) != self._rows.count:
            raise RequestError(f"adapters were said of {self._rows.count} rows, and there are {len(x)}")
        for name, where in self._rows.groups.items():
            if (part := self.parts.get(name)) is not None:
                some = x[where]
                y[where] += part.scale * part.lora_B(part.lora_A(some))
        return y


class Mix:
    """Adapters of a loaded model, by name.

    Only layers that some adapter changes are Mixed; without adapters the model is as it was loaded.
    """

    def __init__(self, loaded: Loaded) -> None:
        if not isinstance(loaded.model, Decoder) or isinstance(loaded, Adapted):
            kind = "has adapters already" if isinstance(loaded, Adapted) else "is no decoder"
            raise RequestError(f"the model {kind}; adapters for single requests need a plain decoder")
        self._loaded, self._rows = loaded, Rows()
        self._mixed: dict[str, Mixed] = {}  # by path
        self.bytes: dict[str, int] = {}  # by name

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters that are there."""
        return tuple(self.bytes)

    def attach(self, name: str, path: str | Path) -> None:
        """Read an adapter from a folder of PEFT's and put it beside the model.

        Raises RequestError for a name that is taken and for an adapter that cannot be mixed, and as
        adapters.read and adapters.attach do; nothing has changed then.
        """
        if name in self.bytes:
            raise RequestError(f"there is an adapter {name[:80]!r} already; unload it first")
        if len(self.bytes) >= MOST:
            raise RequestError(f"{MOST} adapters are there already; unload one first")
        if not Path(path).is_dir():
            raise RequestError(f"adapter {name[:80]!r} is no folder with an adapter_config.json")
        parts = self._parts(Path(path))
        model = self._loaded.model
        for where, part in parts.items():
            if where not in self._mixed:
                self._mixed[where] = Mixed(model.get_submodule(where), self._rows)
                model.set_submodule(where, self._mixed[where])
            self._mixed[where].parts[name] = part
        self.bytes[name] = sum(one.nbytes for part in parts.values() for one in _own(part))

    def detach(self, name: str) -> None:
        """Let go of an adapter. Raises RequestError for one that is not there."""
        if self.bytes.pop(name, None) is None:
            raise RequestError(f"there is no adapter {name[:80]!r} here")
        for where, mixed in list(self._mixed.items()):
            mixed.parts.pop(name, None)
            if not mixed.parts:
                self._loaded.model.set_submodule(where, mixed.base)
                del self._mixed[where]

    @contextmanager
    def rows(self, assignment: Sequence[str | None]) -> Iterator[None]:
        """Say for the forward passes within which adapter each row has."""
        by_name: dict[str, list[int]] = {}
        for row, name in enumerate(assignment):
            if name is not None:
                by_name.setdefault(name, []).append(row)
        if unknown := [name for name in by_name if name not in self.bytes]:
            raise RequestError(f"there is no adapter {unknown[0][:80]!r} here")
        device = next(self._loaded.model.parameters()).device
        self._rows.count = len(assignment)
        self._rows.groups = {name: torch.tensor(rows, device=device) for name, rows in by_name.items()}
        try:
            yield
        finally:
            self._rows.count, self._rows.groups = 0, {}

    def _parts(self, path: Path) -> dict[str, LoRA]:
        """Return what an adapter adds, by path; the model is as it was."""
        plain = {where: mixed.base for where, mixed in self._mixed.items()}
        model = self._loaded.model
        for where, base in plain.items():
            model.set_submodule(where, base)
        try:
            adapted = attach(self._loaded, read(path))
            try:
                return {where: self._part(where, path) for where, _ in adapted.replaced}
            finally:
                detach(adapted)
        finally:
            for where, mixed in self._mixed.items():
                model.set_submodule(where, mixed)

    def _part(self, where: str, path: Path) -> LoRA:
        """Return what an adapter adds to one layer. Raises CheckpointError where rows cannot tell of it."""
        made = self._loaded.model.get_submodule(where)
        if type(made) is not LoRA or isinstance(made.base, LoRA):
            reason = f"changes {where} by more than a product of two small matrices"
        elif not where.startswith("layers.") or ".experts" in where:
            reason = f"changes {where}, which sees other rows than the tokens of a step"
        else:
            made.base = nn.Identity()  # the layer's own stays with the layer
            return made.requires_grad_(False).eval()
        raise CheckpointError(
            reason, file=path, remedy="Open the model with it for all requests, or merge it into the weights"
        )


def _own(part: LoRA) -> tuple[Tensor, Tensor]:
    return part.lora_A.weight, part.lora_B.weight
