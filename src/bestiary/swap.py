"""Replace modules by path: adapters, packed weights, fused blocks. The model never knows."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn

from .errors import RequestError


def swap(model: nn.Module, where: str, make: Callable[[nn.Module], nn.Module]) -> int:
    """Replace every module whose whole path matches the pattern `where` by make(module); return how many.

    Raises RequestError when none matches: a technique that touched nothing is a mistake, not a success.
    """
    pattern = re.compile(where)
    hits = [(path, module) for path, module in model.named_modules() if pattern.fullmatch(path)]
    if not hits:
        some = ", ".join(path for path, _ in list(model.named_modules())[1:4])
        raise RequestError(f"no module's path matches {where!r}; paths look like {some}")
    for path, module in hits:
        model.set_submodule(path, make(module))
    return len(hits)
