"""A case of a training objective: numbers that went in, numbers that should come out, and none left over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..finding import Finding
from ..places import meta


class Case:
    """The tensors of a case: what is read counts as input, what is checked as result.

    A case is shown to hold where no result differs by more than its tolerance, and none was left out.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meta: Mapping[str, Any] = meta(folder)
        self.tolerance = float(self.meta["tolerance"])
        self._tensors = load_file(folder / "expected.safetensors")
        self._met: set[str] = set()
        self._worst, self._where = 0.0, ""
        self._left: dict[str, None] = {}

    @property
    def variants(self) -> Mapping[str, Any]:
        """The parameters of each variant, by its name."""
        found: Mapping[str, Any] = self.meta["variants"]
        return found

    def __getitem__(self, key: str) -> Tensor:
        self._met.add(key)
        return self._tensors[key]

    def __contains__(self, key: str) -> bool:
        return key in self._tensors

    def keys(self, start: str = "") -> list[str]:
        """Return the keys that begin so, in order."""
        return sorted(key for key in self._tensors if key.startswith(start))

    def learned(self, key: str) -> Tensor:
        """Return an input whose gradient is asked for."""
        return self[key].clone().requires_grad_()

    def check(self, key: str, got: Tensor | float | list[int]) -> None:
        """Compare a result with the case's: relative to numbers above 1, as sums of many terms round so."""
        want = self[key].double()
        have = torch.as_tensor(got).detach().double()
        have = have.reshape(want.shape) if have.numel() == 1 == want.numel() else have
        error = float("inf")
        if have.shape == want.shape:
            far = (have - want).abs() / want.abs().clamp_min(1)
            error = far.where(have != want, 0).nan_to_num(nan=float("inf")).amax().item()  # equal infinities
        if error > self._worst or not self._where:
            self._worst, self._where = error, key

    def require(self, key: str, holds: bool) -> None:
        """Say whether what an input shows holds, where no number is compared."""
        self._met.add(key)
        if not holds:
            self._worst, self._where = float("inf"), key

    def check_gradients(self, loss: Tensor, by: Mapping[str, Tensor]) -> None:
        """Compare the gradients of a loss, by the key that each has in the case."""
        found = torch.autograd.grad(loss, list(by.values()), allow_unused=True, materialize_grads=True)
        for key, gradient in zip(by, found, strict=True):
            self.check(key, gradient)

    def leave(self, why: str, *keys: str) -> None:
        """Say of results that they are not compared, and why."""
        self._met.update(keys)
        self._left[why] = None

    def finding(self, what: str) -> Finding:
        """Return what was found."""
        if rest := sorted(set(self._tensors) - self._met):
            return Finding(what, False, note=f"never compared: {', '.join(rest[:5])}")
        note = "; ".join(self._left) if self._worst <= self.tolerance else f"{self._where} differs"
        return Finding.near(what, self._worst, self.tolerance, note)
