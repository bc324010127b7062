"""A tiny chat model that is opened once."""

from __future__ import annotations

from pathlib import Path

import pytest

from bestiary import LLM
from tests.unit.run.chatmodel import publish


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("chat") / "model"
    made.mkdir()
    publish(made)
    return made


@pytest.fixture(scope="package")
def llm(folder: Path) -> LLM:
    return LLM(folder)
