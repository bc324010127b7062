"""The lineage of the roster as a drawing: what was made from what, from left to right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..roster import Entry
from ..roster.lineage import chain, system, verdict
from .labels import HOW
from .markup import Markup, joined, tag

# In pixels of the drawing: a row, a column, a box, and the letters that fit it.
_ROW, _COLUMN, _WIDE, _HIGH = 24, 330, 170, 20
_MARGIN = 8
_LETTERS = 24


@dataclass
class Node:
    """A box of the drawing. column: steps from a root. row: from above, in halves where it stands between."""

    name: str
    system: Entry | None
    column: int = 0
    row: float = 0.0
    above: list[tuple[str, str]] = field(default_factory=list)  # (name, how)
    below: list[str] = field(default_factory=list)


def nodes(entries: Sequence[Entry]) -> dict[str, Node]:
    """Place every system that was made from another or into another, and what else they were made from."""
    found = {entry.id: Node(entry.id, entry) for entry in sorted(entries, key=lambda e: (e.date, e.id))}
    for entry in list(found.values()):
        for step in entry.system.lineage if entry.system else ():
            known = system(step.base)
            name = known.id if known is not None else step.base
            if " " in name or name == entry.name or name in (above for above, _ in entry.above):
                continue  # its own data has no box, and what was made twice from the same one line
            found.setdefault(name, Node(name, known)).below.append(entry.name)
            entry.above.append((name, step.how))
    kept = {name: node for name, node in found.items() if node.above or node.below}
    for node in kept.values():
        node.column = _depth(node, kept, frozenset())
    row = 0
    placed: set[str] = set()
    roots = [node for node in kept.values() if not node.above]
    # The largest family first; a system of several stands with the one it was made from first.
    for root in sorted(roots, key=lambda node: -len(_family(node, kept, set()))):
        row = _place(root, kept, placed, row)
    for node in kept.values():  # what is in a circle has no root
        row = _place(node, kept, placed, row)
    return kept


def _depth(node: Node, known: Mapping[str, Node], seen: frozenset[str]) -> int:
    bases = [known[name] for name, _ in node.above if name not in seen]
    return max((_depth(base, known, seen | {node.name}) + 1 for base in bases), default=0)


def _family(node: Node, known: Mapping[str, Node], seen: set[str]) -> set[str]:
    seen.add(node.name)
    for name in node.below:
        if name not in seen:
            _family(known[name], known, seen)
    return seen


def _place(node: Node, known: Mapping[str, Node], placed: set[str], row: int) -> int:
    """Give a node and what was made from it first their rows, and return the next free one."""
    if node.name in placed:
        return row
    placed.add(node.name)
    first = row
    for name in node.below:
        child = known[name]
        if child.above[0][0] == node.name:
            row = _place(child, known, placed, row)
    row = max(row, first + 1)
    node.row = (first + row - 1) / 2
    return row


def drawing(entries: Sequence[Entry]) -> Markup:
    """Return the drawing as SVG; each system's box is a link to its card."""
    placed = nodes(entries)
    if not placed:
        return tag("p", "None of these was made from another.")
    high = round(max(node.row for node in placed.values()) * _ROW + _HIGH + 2 * _MARGIN)
    wide = max(node.column for node in placed.values()) * _COLUMN + _WIDE + 2 * _MARGIN
    lines = [
        _line(placed[name], node, how)
        for node in placed.values()
        for name, how in node.above
        if name in placed
    ]
    return tag(
        "svg",
        tag("g", joined(lines), class_="lines", fill="none"),
        joined([_box(node) for node in placed.values()]),
        viewBox=f"0 0 {wide} {high}",
        width=wide,
        height=high,
        role="group",
        aria_label="What was made from what, from left to right",
    )


def _line(base: Node, node: Node, how: str) -> Markup:
    x, y = _MARGIN + base.column * _COLUMN + _WIDE, _middle(base)
    to_x, to_y = _MARGIN + node.column * _COLUMN, _middle(node)
    bend = (to_x - x) / 2 if to_x > x else _COLUMN / 2
    path = f"M{x} {y:g}C{x + bend:g} {y:g} {to_x - bend:g} {to_y:g} {to_x} {to_y:g}"
    said = f"{node.name}: {HOW[how][0]} ({base.name})"
    return tag("path", tag("title", said), d=path, class_=how, data_from=base.name, data_to=node.name)


def _box(node: Node) -> Markup:
    x, y = _MARGIN + node.column * _COLUMN, _MARGIN + node.row * _ROW
    name = node.name if len(node.name) <= _LETTERS else f"{node.name[: _LETTERS - 1]}…"
    inside = (
        tag("title", f"{node.name}, {node.system.date[:4]}" if node.system else node.name),
        tag("rect", x=x, y=f"{y:g}", width=_WIDE, height=_HIGH, rx=4),
        tag("text", name, x=x + 8, y=f"{y + 14:g}"),
    )
    if node.system is None:
        return tag("g", *inside, class_="other", data_name=node.name)
    return tag("a", *inside, href=f"#{node.name}", class_=verdict(chain(node.system)), data_name=node.name)


def _middle(node: Node) -> float:
    return _MARGIN + node.row * _ROW + _HIGH / 2
