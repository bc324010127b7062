"""One server for all tests that only ask; those that break it start their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.serve.serving import Running, running
from tests.unit.run.chatmodel import publish

KEY = "a-key-of-the-tests-and-of-nobody"


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny chat model that somebody published."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    publish(folder)
    return folder


@pytest.fixture(scope="session")
def server(chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of the tiny chat model, with a key."""
    log = tmp_path_factory.mktemp("server") / "log"
    with running(chat_model, "--max-streams", "4", log=log, key=KEY) as one:
        yield one


@pytest.fixture(scope="session")
def client(server: Running) -> Iterator[httpx2.Client]:
    """A client that has the key."""
    with server.client() as one:
        yield one
