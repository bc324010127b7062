"""A server under load: room for a crowd, and a journal to hold its answers to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.serve.serving import Running, running

Serve = Callable[..., Running]


@pytest.fixture
def serve(chat_model: Path, tmp_path: Path) -> Iterator[Serve]:
    """Start a server of a model (the tiny one) with options; its journal is beside its log."""
    with ExitStack() as stack:
        count = iter(range(1_000_000))

        def start(*options: str, model: Path = chat_model) -> Running:
            folder = tmp_path / str(next(count))
            folder.mkdir()
            words = ("--journal", str(folder / "journal"), "--quiet", *options)
            return stack.enter_context(running(model, *words, log=folder / "log"))

        yield start


@pytest.fixture(scope="package")
def crowded(chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for tests that leave it as they found it: half of a crowd is computed, the rest waits."""
    folder = tmp_path_factory.mktemp("crowded")
    options = ("--max-streams", "48", "--queue", "128", "--chunk", "128")
    with running(
        chat_model, *options, "--journal", str(folder / "journal"), "--quiet", log=folder / "log"
    ) as one:
        yield one


def journal_of(server: Running) -> Path:
    """Where a server writes what it sampled."""
    return server.log.with_name("journal")
