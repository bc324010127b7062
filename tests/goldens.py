"""Reference results: what other implementations computed from tiny checkpoints, one folder a case.

They are looked for in $BESTIARY_GOLDENS, else in `shared/goldens` beside the checkout. Where they are absent
the tests that need them are left out, and the last lines of the run say how many.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "goldens"


def root() -> Path | None:
    """Return the folder of reference results, or None where there is none.

    Raises:
        NotADirectoryError: $BESTIARY_GOLDENS is set and is no folder.
    """
    named = os.environ.get("BESTIARY_GOLDENS")
    if named and not Path(named).is_dir():
        raise NotADirectoryError(f"BESTIARY_GOLDENS={named} is not a folder. Unset it, or name one.")
    folder = Path(named) if named else _BESIDE
    return folder.resolve() if folder.is_dir() else None


def cases(*patterns: str) -> list[Path]:
    """Return the case folders that match any of the shell-style patterns; none where there are no results.

    Raises:
        LookupError: the results are here and a pattern matches none: no test vanishes by a typing slip.
    """
    folder = root()
    if folder is None:
        return []
    found: set[Path] = set()
    for pattern in patterns:
        matches = {path for path in folder.glob(pattern) if path.is_dir()}
        if not matches:
            raise LookupError(f"no reference result matches {pattern!r} in {folder}")
        found |= matches
    return sorted(found)


def meta(case: Path) -> dict[str, Any]:
    """Return a case's META.json: family, reference, tolerance, pitfalls."""
    read: dict[str, Any] = json.loads((case / "META.json").read_text(encoding="utf-8"))
    return read
