"""The systems as data: one TOML file a system, named for what a user types in place of a path.

What is said of a system (who made it, from what, under which licences, what it is known for, which
checkpoints there are and how each is prompted) is said in its file, once, and nothing else in the package
knows a model by its name. docs/roster.md says how to write an entry; `published` has the published sizes.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from .entry import Checkpoint, Entry, File, Wheel, read

__all__ = ["DEFAULT", "Checkpoint", "Entry", "File", "Wheel", "entries", "find", "normal", "read"]

DEFAULT = "smollm2"


@cache
def entries() -> Mapping[str, Entry]:
    """Every system of the roster by its id, in the order of the names."""
    return MappingProxyType({entry.id: entry for entry in _read_all()})


def find(name: str) -> Entry | None:
    """The system that goes by this name or one of its aliases, or has this checkpoint; None for no such.

    Letter case, spaces, hyphens, dots and underscores make no difference.
    """
    if "/" in name:
        return _by_checkpoint().get(name.lower())
    file = files(__name__) / f"{name.lower()}.toml"
    if re.fullmatch(r"[a-z0-9.-]+", name.lower()) and file.is_file():
        # The others need not be read, which would take most of the time of a short command.
        return (
            entries()[name.lower()]
            if entries.cache_info().currsize
            else read(name.lower(), tomllib.loads(file.read_text("utf-8")))
        )
    return _by_name().get(normal(name))


def normal(name: str) -> str:
    """A name as it is compared: without letter case, spaces, hyphens, dots, underscores and brackets."""
    return re.sub(r"[\s._()/-]+", "", name).casefold()


def _read_all() -> Iterator[Entry]:
    found = [file for file in files(__name__).iterdir() if file.name.endswith(".toml")]
    for file in sorted(found, key=lambda file: file.name):
        yield read(file.name.removesuffix(".toml"), tomllib.loads(file.read_text("utf-8")))


@cache
def _by_name() -> Mapping[str, Entry]:
    named = {
        normal(name): entry
        for entry in entries().values()
        for name in (*entry.aliases, entry.listed or entry.name, entry.name)
    }
    return named | {normal(entry.id): entry for entry in entries().values()}


@cache
def _by_checkpoint() -> Mapping[str, Entry]:
    return {one.id.lower(): entry for entry in entries().values() for one in entry.checkpoints}
