"""What must not stand in any tracked file: names that say nothing, and paths of somebody's own machine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tools.sources import ROOT

NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
PATHS = re.compile(r"(?<![\w.~$}])/(?:work|root|home/\w+|Users/\w+|tmp/plan)/")


def problems(paths: Iterable[Path]) -> Iterator[str]:
    """Yield one line for each name and each line of text that must not be there."""
    for path in paths:
        shown = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
        for part in Path(shown).parts:
            if Path(part).stem in NAMES and Path(shown).suffix in (".py", ".c", ".h", ".md", ".sh"):
                yield f"{shown}: a file or folder called {part!r} says nothing about what is in it"
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture or an archive
        for number, line in enumerate(text.splitlines(), 1):
            if found := PATHS.search(line):
                yield f"{shown}:{number}: {found[0]} is a path of one machine"
