"""What systems were made from, what was made from them, and which licences follow from that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from . import entries
from .entry import Checkpoint, Entry, Step

# A model made so holds nothing of the other's weights, and its licence does not reach it.
APART = frozenset({"scratch", "distil"})
# Worst first: what a chain of licences allows is what its worst link does.
_WORST = ("no", "unstated", "conditions", "yes")


@dataclass(frozen=True)
class Link:
    """One system of a chain of licences. how: the step that leads to it, None for the first.

    licence and commercial are those of the weights: the checkpoint's own where it has its own.
    """

    system: Entry | None
    name: str
    how: str | None
    licence: str
    commercial: str
    clause: str


@dataclass(frozen=True)
class Node:
    """One system in a tree of lineage. how: how it was made from the one before; below: what comes next."""

    name: str
    how: str
    system: Entry | None
    note: str
    below: tuple[Node, ...]


@cache
def made_from() -> Mapping[str, tuple[tuple[Entry, Step], ...]]:
    """Which systems were made from each, by its id, the oldest first."""
    found: dict[str, list[tuple[Entry, Step]]] = {}
    for entry in sorted(entries().values(), key=lambda entry: entry.date):
        for step in entry.lineage:
            found.setdefault(step.base, []).append((entry, step))
    return MappingProxyType({base: tuple(rows) for base, rows in found.items()})


def ancestors(entry: Entry, *, above: frozenset[str] = frozenset()) -> tuple[Node, ...]:
    """What a system was made from, and what that was made from, up to the roots."""
    seen = above | {entry.id}
    nodes = []
    for step in entry.lineage:
        base = entries().get(step.base)
        further = ancestors(base, above=seen) if base is not None and base.id not in seen else ()
        nodes.append(Node(base.id if base else step.base, step.how, base, step.note, further))
    return tuple(nodes)


def descendants(entry: Entry, *, above: frozenset[str] = frozenset()) -> tuple[Node, ...]:
    """What was made from a system, and what was made from that."""
    seen = above | {entry.id}
    return tuple(
        Node(child.id, step.how, child, step.note, descendants(child, above=seen))
        for child, step in made_from().get(entry.id, ())
        if child.id not in seen
    )


def chain(entry: Entry, checkpoint: Checkpoint | None = None) -> tuple[Link, ...]:
    """The licences that weights stand under: their own, then those of what they were made from.

    checkpoint: which of the system's; without one, the system as a whole.
    """
    own = checkpoint or Checkpoint("")
    first = Link(
        entry,
        own.id or entry.id,
        None,
        own.licence or entry.licence.weights,
        own.commercial or entry.licence.commercial,
        entry.licence.clause,
    )
    if own.commercial is not None:  # said of these very weights, whatever they were made from
        return (first,)
    return (first, *_links(entry, _steps(entry, own.base), {entry.id}))


def verdict(links: Iterable[Link]) -> str:
    """Return what a chain allows as a whole: the worst of its `commercial` words."""
    return min((link.commercial for link in links), key=_WORST.index)


def _links(entry: Entry, steps: Iterable[Step], seen: set[str]) -> Iterator[Link]:
    for step in steps:
        base = entries().get(step.base)
        if step.how in APART or base is None or base.id in seen:
            continue
        seen.add(base.id)
        said = base.licence
        yield Link(base, base.id, step.how, said.weights, said.commercial, said.clause)
        yield from _links(base, base.lineage, seen)


def _steps(entry: Entry, bases: tuple[str, ...]) -> tuple[Step, ...]:
    """The steps that lead to the models that a checkpoint names as its bases; all where none does."""
    owners = {one.id.lower(): other.id for other in entries().values() for one in other.checkpoints}
    named = {owners.get(base.lower(), base) for base in bases}
    return tuple(step for step in entry.lineage if step.base in named) or entry.lineage
