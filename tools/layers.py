"""Who may import whom. A package imports from rows above its own, never from beside or below.

The list is the design: when the design changes, change it here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from tools.sources import PACKAGE, Source

LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("formats",),
    ("config", "files", "kernels"),
    ("prompt",),
    ("cache",),
    ("context",),
    ("bricks",),
    ("models", "tensors", "swap"),
    ("quant",),
    ("families",),
    ("roster",),
    ("describe", "fit"),
    ("hub", "load"),
    ("adapters",),
    ("text", "adopt"),
    ("convert", "run"),
    ("train", "engine"),
    ("serve",),
    ("prove",),
    ("cli",),
    ("__main__", ""),  # "" is the package's own __init__, which shows names of any row
)

# Names to local paths: they must work, and refuse, before anything heavy is imported.
ONLY = {"roster": {"errors", "files"}, "hub": {"errors", "files", "roster"}}

RANK = {name: rank for rank, row in enumerate(LAYERS) for name in row}


def problems(sources: Iterable[Source]) -> Iterator[str]:
    """Yield one line for each import against the order, and for each package that the list does not know."""
    for source in sources:
        own = source.module[1] if len(source.module) > 1 else ""
        if own not in RANK:
            yield f"{source.path}: {own!r} has no row in tools/layers.py"
            continue
        for line, target in imports(source):
            if target == own:
                continue
            allowed = ONLY.get(own)
            if target not in RANK or RANK[target] >= RANK[own] or (allowed and target not in allowed):
                yield f"{source.path}:{line}: {own or PACKAGE} must not import {target or PACKAGE}"


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """Yield (line, top-level name within the package) for each import of the package's own modules."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == PACKAGE:
                    yield node.lineno, parts[1] if len(parts) > 1 else ""
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(source, node)
            if base[:1] != (PACKAGE,):
                continue
            for alias in node.names:
                full = (*base, alias.name)
                # `from bestiary import x` is a module or a public name of the package's __init__.
                yield node.lineno, full[1] if len(base) > 1 or full[1] in RANK else ""


def _absolute(source: Source, node: ast.ImportFrom) -> tuple[str, ...]:
    written = tuple(node.module.split(".")) if node.module else ()
    if not node.level:
        return written
    up = node.level - 1 if source.is_package else node.level
    return (*source.module[: len(source.module) - up], *written)
