"""Derive the shapes of published checkpoints, shapes.json, from sizes.toml: `python -m tools.shapes`.

Each is built on `meta` and run there, which takes seconds; rows whose config has not changed are kept, unless
`--all` is given.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from bestiary.describe import empty
from bestiary.roster.published import Published, published
from bestiary.roster.published.shapes import FILE
from bestiary.run.shape import shape
from tools.sources import ROOT

PAGE = ROOT / "src/bestiary/roster/published" / FILE


def main(*, anew: bool) -> None:
    """Write the file, a line for each row."""
    before: Mapping[str, Any] = {} if anew or not PAGE.exists() else known()
    rows = []
    for one in published():
        row = before.get(digest(one)) or derived(one)
        rows.append({**row, "ids": list(one.ids)})
        if digest(one) not in before:
            print(one.ids[0], flush=True)
            write([*rows, *(row for row in before.values() if row not in rows)])
    write(rows)


def known() -> dict[str, Any]:
    """Return the rows that are there, by the digest of what they were derived from."""
    return {row["config"]: row for row in json.loads(PAGE.read_text("utf-8"))}


def derived(one: Published) -> dict[str, Any]:
    """Build a checkpoint and return its row."""
    return {
        "ids": list(one.ids),
        "config": digest(one),
        "shape": shape(partial(empty, one.config), one.config).row(),
    }


def digest(one: Published) -> str:
    """Return what tells whether a row is still that of this checkpoint."""
    return hashlib.sha256(json.dumps(one.config, sort_keys=True).encode()).hexdigest()[:16]


def write(rows: list[dict[str, Any]]) -> None:
    """Write the file as a whole."""
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    temporary = PAGE.with_suffix(".tmp")
    temporary.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    temporary.replace(PAGE)


if __name__ == "__main__":
    main(anew="--all" in sys.argv[1:])
