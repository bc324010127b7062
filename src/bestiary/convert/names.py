"""Tables of tensor names, read from our side: what a file of a family calls the tensors of a model."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from ..errors import CheckpointError
from ..tensors import Drop, Layout, Rules, Same, Use, some


def uses(rules: Rules, names: Collection[str]) -> list[Use]:
    """Return which published tensors hold ours, in our order, by the first rule of a table that has them.

    names: of our tensors. Raises CheckpointError for tensors that the table has no name for.
    """
    known, done, lost = set(names), set[str](), list[str]()
    found: list[Use] = []
    for name in names:
        if name in done:
            continue
        use = next(
            (use for use in _held(rules, name) if known.issuperset(use.ours) and done.isdisjoint(use.ours)),
            None,
        )
        if use is None:
            lost.append(name)
        else:
            found.append(use)
            done.update(use.ours)
    if lost:
        raise CheckpointError(f"{len(lost)} of the model's tensors have no name there: {some(lost)}")
    return found


def _held(rules: Rules, name: str) -> Iterator[Use]:
    """Yield what each rule makes of one of our names."""
    for theirs, target in rules.items():
        if isinstance(target, Drop):
            continue
        layout: Layout = Same(target) if isinstance(target, str) else target
        sources = (theirs,) if isinstance(theirs, str) else theirs
        for path in layout.targets:
            if hit := re.fullmatch(_pattern(path), name):
                published = tuple(_filled(source, hit.groups()) for source in sources)
                yield Use(published, tuple(_filled(ours, hit.groups()) for ours in layout.targets), layout)


def _pattern(path: str) -> str:
    path, _, leaf = path.partition(":")
    wild = re.escape(path).replace(r"\*", r"(\d+)")
    return rf"{wild}\.({leaf or r'[^.]+'})" if path else f"({leaf})"


def _filled(path: str, found: Sequence[str]) -> str:
    """Return a path with its numbers and its leaf; what is optional in it is there."""
    *numbers, leaf = found
    path, _, own = path.replace("[", "").replace("]", "").partition(":")
    for number in numbers:
        path = path.replace("*", number, 1)
    return ".".join(part for part in (path, own or leaf) if part)
