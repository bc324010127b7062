"""The chat formats as data: no program of a stranger runs for them.

Each .toml file here holds one format: what stands around each role's text, as `Format` explains, and the
SHA-256 of the published templates that say the same. `Format.fits` tells for which conversations that is all
a template does. For the others (roles it does not know, text it would trim, turns it would refuse) the
template itself is asked. A format without a published template goes by its name, and says what it refuses.
"""

from __future__ import annotations

import difflib
import hashlib
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources

from ...errors import RequestError
from . import format as _format
from .format import Format, Turn

__all__ = ["Format", "Turn", "find", "formats", "get", "named", "read"]


@cache
def named() -> Mapping[str, Format]:
    """Return every format by its name. Raises ValueError for a name that two files have: the data is ours."""
    found: dict[str, Format] = {}
    for file in sorted(resources.files(__package__).iterdir(), key=lambda file: file.name):
        if file.name.endswith(".toml"):
            format_ = read(file.read_text(encoding="utf-8"))
            if f"{format_.name}.toml" != file.name:
                raise ValueError(f"{file.name} holds the format {format_.name!r}")
            found[format_.name] = format_
    return found


@cache
def formats() -> Mapping[str, Format]:
    """Return every format, by the SHA-256 of each template that it stands for."""
    return {sha: format_ for format_ in named().values() for sha in format_.templates}


def read(text: str) -> Format:
    """Return the format that a .toml file holds."""
    return _format.read(tomllib.loads(text))


def find(template: str) -> Format | None:
    """Return the format of a published Jinja template, None for one that is not known."""
    return formats().get(hashlib.sha256(template.encode()).hexdigest())


def get(name: str) -> Format:
    """Return the format that goes by a name. Raises RequestError, with the nearest names, for none."""
    if name in named():
        return named()[name]
    near = difflib.get_close_matches(name, named(), n=3)
    meant = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise RequestError(f"no chat format is called {name[:80]!r}{meant}")
