"""Read tests/parity/published_sizes.toml: published checkpoints, their config.json and their size."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from functools import cache
from typing import Any

from tools.sources import ROOT

TABLE = ROOT / "tests/parity/published_sizes.toml"


@dataclass(frozen=True)
class Published:
    """One row of the table, which says itself what each field is; config is complete here."""

    ids: tuple[str, ...]
    config: dict[str, Any]
    params: int
    sum: str | None = None
    published: str | None = None


@cache
def published() -> tuple[Published, ...]:
    """Return the rows, each with the whole of its config. An unknown or missing key raises TypeError."""
    rows: list[Published] = []
    configs: dict[str, dict[str, Any]] = {}
    for row in tomllib.loads(TABLE.read_text(encoding="utf-8"))["checkpoint"]:
        like, own, ids = row.pop("like", None), row.pop("config"), tuple(row.pop("ids"))
        config = {**(configs[like] if like else {}), **json.loads(own)}
        configs[ids[0]] = config
        rows.append(Published(ids, config, **row))
    return tuple(rows)
