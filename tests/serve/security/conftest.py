"""Two servers that are watched: one has a key, the other anybody here may ask."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.serve.serving import Running, running

OTHER_KEY, PAGE = "another-key-of-the-tests", "https://chat.example.org"
_WATCHED = Path(__file__).with_name("watched.py")


@dataclass(frozen=True)
class Watched:
    """A server, what it and its children opened since they began, and where adapters may be."""

    server: Running
    events: Path
    adapters: Path

    def seen(self) -> list[tuple[str, list[str]]]:
        """Every event so far: its name, and its arguments as Python spells them."""
        lines: list[tuple[int, str, list[Any]]] = list(map(json.loads, self.events.read_text().splitlines()))
        return [(event, args) for _, event, args in lines]

    def processes(self) -> set[int]:
        return {json.loads(line)[0] for line in self.events.read_text().splitlines()}


def _watched(model: Path, folder: Path, *options: str, key: str = "") -> Iterator[Watched]:
    events, adapters = folder / "events", folder / "adapters"
    adapters.mkdir()
    (folder / "outside").mkdir()
    (adapters / "link").symlink_to(folder / "outside")
    command = (sys.executable, str(_WATCHED), str(events), "-m", "bestiary")
    named = ("--allow-adapters", str(adapters), "--served-name", "tiny", *options)
    with running(model, *named, log=folder / "log", key=key, command=command) as server:
        yield Watched(server, events, adapters)


@pytest.fixture(scope="session")
def watched(chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A server with two keys, and one page of another server that may ask."""
    options = ("--api-key", OTHER_KEY, "--allow-origin", PAGE)
    yield from _watched(chat_model, tmp_path_factory.mktemp("keyed"), *options, key="a-key-of-the-tests")


@pytest.fixture(scope="session")
def unlocked(chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A server without a key, which only listens on the loopback, and writes prompts down."""
    yield from _watched(chat_model, tmp_path_factory.mktemp("unlocked"), "--log-prompts")
