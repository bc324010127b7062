"""The repository's own files, parsed: what every check below reads."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "bestiary"


@dataclass(frozen=True)
class Source:
    """A Python file: its path from the root (`src/bestiary/files/gguf.py`), and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The file, parsed."""
        return ast.parse(self.text, self.path)

    @property
    def module(self) -> tuple[str, ...]:
        """The dotted name in parts, without the source folder and without __init__: ("bestiary", "files")."""
        parts = Path(self.path).with_suffix("").parts
        parts = parts[1:] if parts[0] == "src" else parts
        return parts[:-1] if parts[-1] == "__init__" else parts

    @property
    def is_package(self) -> bool:
        """Whether the file is a package's __init__, which relative imports start from."""
        return Path(self.path).name == "__init__.py"


def tracked() -> list[Path]:
    """Return every file that git holds or would add; of an unpacked archive, all that is not hidden."""
    if not (ROOT / ".git").exists():
        paths = (path for path in sorted(ROOT.rglob("*")) if path.is_file())
        return [path for path in paths if not any(part[0] == "." for part in path.relative_to(ROOT).parts)]
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    # A file deleted here and not yet committed is listed still.
    return [path for name in sorted(set(listed.split("\0")) - {""}) if (path := ROOT / name).is_file()]


def python(*folders: str) -> Iterator[Source]:
    """Yield the Python files under the folders that exist."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
