"""What systems were made from, what was made from them, and which licences follow from that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from . import entries, find
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


def system(base: str) -> Entry | None:
    """The system that a base is: by its id, or as one of its checkpoints; None for none of the roster."""
    return entries().get(base) or (find(base) if "/" in base else None)


@cache
def made_from() -> Mapping[str, tuple[tuple[Entry, Step], ...]]:
    """Which systems were made from each, by its id, the oldest first."""
    found: dict[str, list[tuple[Entry, Step]]] = {}
    for entry in sorted(entries().values(), key=lambda entry: entry.date):
        for step in entry.lineage:
            base = system(step.base)
            found.setdefault(base.id if base else step.base, []).append((entry, step))
    return MappingProxyType({base: tuple(rows) for base, rows in found.items()})


def ancestors(entry: Entry, *, above: frozenset[str] = frozenset()) -> tuple[Node, ...]:
    """What a system was made from, and what that was made from, up to the roots."""
    seen = above | {entry.id}
    nodes = []
    for step in entry.lineage:
        base = system(step.base)
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

    checkpoint: which of the system's; unless told the first, which its bare name stands for.
    """
    one = checkpoint or next(iter(entry.checkpoints), None)
    name = entry.id if checkpoint is None or one is None else one.id
    licence = (one and one.licence) or entry.licence.weights
    commercial = (one and one.commercial) or entry.licence.commercial
    first = Link(entry, name, None, licence, commercial, entry.licence.clause)
    steps = entry.lineage if one is None else _steps(entry, one, commercial)
    return (first, *_links(steps, {entry.id}))


def verdicts(entry: Entry) -> dict[str, list[Checkpoint]]:
    """What each of a system's checkpoints allows, and which do: that of the first comes first."""
    found: dict[str, list[Checkpoint]] = {}
    for one in entry.checkpoints:
        found.setdefault(verdict(chain(entry, one)), []).append(one)
    return found


def verdict(links: Iterable[Link]) -> str:
    """Return what a chain allows as a whole: the worst of its `commercial` words."""
    return min((link.commercial for link in links), key=_WORST.index)


def _links(steps: Iterable[Step], seen: set[str]) -> Iterator[Link]:
    for step in steps:
        base = system(step.base)
        if step.how in APART or base is None or base.id in seen:
            continue
        seen.add(base.id)
        said = base.licence
        yield Link(base, base.id, step.how, said.weights, said.commercial, said.clause)
        yield from _links(base.lineage, seen)


def _steps(entry: Entry, checkpoint: Checkpoint, commercial: str) -> tuple[Step, ...]:
    """Of a system made from several, the steps that lead to one of its checkpoints.

    They are those to its bases, or else to what it has the sizes of, or else those that allow what is said of
    it: of Vicuna, which may be used on conditions, version 1.5 came from Llama 2, and not from LLaMA.
    """
    for names in (checkpoint.base, (checkpoint.like or "",)):
        owners = {owner.id for name in names if (owner := system(name)) is not None}
        named = [
            step for step in entry.lineage if (base := system(step.base)) and base.id in owners - {entry.id}
        ]
        if named:
            return tuple(named)
    allowed = {step: verdict((*_links([step], {entry.id}), _FREE)) for step in entry.lineage}
    agree = [step for step, word in allowed.items() if word == commercial]
    freer = [step for step, word in allowed.items() if _WORST.index(word) > _WORST.index(commercial)]
    return tuple(agree or freer) or entry.lineage


# What a step to no weights at all allows.
_FREE = Link(None, "", None, "", "yes", "")
