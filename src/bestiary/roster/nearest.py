"""Names that come near to one that nobody has: for a message that says what was perhaps meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from . import entries, normal

MOST = 3


def nearest(wanted: str, more: Iterable[str] = ()) -> list[str]:
    """Return up to three names to type, the likeliest first.

    Compared are ids, names, aliases and checkpoints of the roster, each for its system's id (a checkpoint for
    itself), and `more`, each for itself. A part of a name counts too.
    """
    typed = [(key, name) for name in more for key in keys(name)]
    for entry in entries().values():
        names = (entry.id, *entry.aliases, entry.listed or entry.name, entry.name)
        typed += [(normal(name), entry.id) for name in names]
        typed += [(key, one.id) for one in entry.checkpoints if "/" in one.id for key in keys(one.id)]
    known: dict[str, list[str]] = {}
    for key, name in typed:
        known.setdefault(key, []).append(name)
    found: list[str] = []
    for text in keys(wanted):
        close = difflib.get_close_matches(text, known, n=MOST, cutoff=0.7)
        parts = sorted((key for key in known if len(text) >= 3 and text in key), key=len)
        found += [name for key in (*close, *parts[:MOST]) for name in known[key]]
    # A whole name of the hub asks for another; one without an organisation, first for a system.
    found = [name for name in found if "/" not in name] + [name for name in found if "/" in name]
    if "/" in wanted:
        found.sort(key=lambda name: "/" not in name)
    return list(dict.fromkeys(found))[:MOST]


def keys(name: str) -> tuple[str, ...]:
    """What of a name to compare: all of it, and of one of the hub what stands behind the organisation."""
    repo = re.split("[@:]", name, maxsplit=1)[0]
    return tuple(dict.fromkeys((normal(repo), normal(repo.rsplit("/", 1)[-1]))))
