"""Published checkpoints, their config.json and their size: sizes.toml, which says what its keys are."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


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
    for row in tomllib.loads((files(__name__) / "sizes.toml").read_text("utf-8"))["checkpoint"]:
        like, own, ids = row.pop("like", None), row.pop("config"), tuple(row.pop("ids"))
        config = {**(configs[like] if like else {}), **json.loads(own)}
        configs[ids[0]] = config
        rows.append(Published(ids, config, **row))
    return tuple(rows)


@cache
def by_id() -> Mapping[str, Published]:
    """Return the rows by each of their ids."""
    return {id: row for row in published() for id in row.ids}
