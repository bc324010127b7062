"""Published tensor names to ours, and back.

A rule maps the path of a module in the file to the path of a module in the model; `*` stands for a number,
and the leaf (`weight`, `bias`) rides along. The same table, read backwards, saves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .errors import CheckpointError


@dataclass(frozen=True)
class Drop:
    """A rule's target for what a file holds and no model needs: buffers that are computed."""


DROP = Drop()

Rules = Mapping[str, str | Drop]

# What training leaves beside the weights in published files of any family, by the last part of its name.
LEFTOVERS = frozenset({"position_ids", "steps"})


@dataclass(frozen=True)
class Match:
    """Which published tensor fills which tensor of the model, and what was left over on either side."""

    targets: Mapping[str, str]  # published name -> ours
    dropped: frozenset[str]
    missing: tuple[str, ...]  # published names
    stray: tuple[str, ...]

    def check(self, file: object) -> None:
        """Raise CheckpointError unless every tensor of both sides has its counterpart."""
        if self.missing or self.stray:
            sides = [
                ("the model needs, the file lacks", self.missing),
                ("the file holds, the model lacks", self.stray),
            ]
            said = "; ".join(f"{what} {len(names)}: {some(names)}" for what, names in sides if names)
            raise CheckpointError(
                said,
                file=str(file),
                remedy="The config and the weights belong to different models, or the download is incomplete",
            )


def match(rules: Rules, published: Iterable[str], wanted: Mapping[str, object]) -> Match:
    """Pair the names of a file with the names of a model.

    wanted: our tensor names, each with the identity of its storage, so that one of several tied names is
    enough.
    """
    patterns = [(_pattern(theirs), ours) for theirs, ours in rules.items()]
    targets: dict[str, str] = {}
    dropped: set[str] = set()
    stray: list[str] = []
    for name in published:
        ours = _rename(name, patterns)
        if isinstance(ours, Drop) or (ours is None and name.rpartition(".")[2] in LEFTOVERS):
            dropped.add(name)
        elif ours is None or ours not in wanted:
            stray.append(name)
        else:
            targets[name] = ours
    filled = {wanted[ours] for ours in targets.values()}
    lacking: dict[object, str] = {}  # tied tensors under their first name
    for name, storage in wanted.items():
        if storage not in filled:
            lacking.setdefault(storage, published_name(rules, name) or name)
    return Match(targets, frozenset(dropped), tuple(lacking.values()), tuple(stray))


def published_name(rules: Rules, ours: str) -> str | None:
    """Return what a file of this family calls our tensor: the table, backwards. None when it has no name."""
    for theirs, target in rules.items():
        if isinstance(target, str) and (hit := _pattern(target).fullmatch(ours)):
            return _fill(theirs, hit)
    return None


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.escape(path).replace(r"\*", r"(\d+)") + r"\.(\w+)")


def _rename(name: str, patterns: list[tuple[re.Pattern[str], str | Drop]]) -> str | Drop | None:
    for pattern, ours in patterns:
        if hit := pattern.fullmatch(name):
            return ours if isinstance(ours, Drop) else _fill(ours, hit)
    return None


def _fill(path: str, hit: re.Match[str]) -> str:
    *numbers, leaf = hit.groups()
    for number in numbers:
        path = path.replace("*", number, 1)
    return f"{path}.{leaf}"


def some(names: Sequence[str]) -> str:
    """Return the first ten names, for an error."""
    return ", ".join(name[:200] for name in names[:10]) + (", ..." if len(names) > 10 else "")
