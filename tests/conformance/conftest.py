"""A server: the one that the environment names, or our own over a tiny model.

    BESTIARY_CONFORMANCE_URL       http://host:port/v1
    BESTIARY_CONFORMANCE_MODEL     the `model` of chat and completions; without it the first that is listed
    BESTIARY_CONFORMANCE_EMBEDDER  the `model` of embeddings, where it is another
    BESTIARY_CONFORMANCE_KEY       a key, where the server asks for one
    BESTIARY_CONFORMANCE_WITHOUT   what is not claimed, by commas, and is left out: see NEEDS

docs/conformance.md tells of it. Nothing here needs the rest of the tests, so that it runs alone:
`pytest --confcutdir=tests/conformance tests/conformance`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx2
import openai
import pytest

from tests.conformance.target import SECONDS, Target

NEEDS = {
    "chat": "/chat/completions",
    "completions": "/completions",
    "embeddings": "/embeddings",
    "responses": "/responses",
    "tools": "function calls, with a model whose template has them",
    "forced": "tool_choice: required, or a function's name",
    "structured": "response_format: json_schema, kept to exactly",
    "scoring": "logprobs of a prompt (echo)",
    "ranking": "best_of",
    "ids": "token ids as prompts",
    "node": "node, npm and the `openai` package of npm",
    "key": "an API key",
    "contract": "an OpenAPI file of its own at /openapi.json",
    "overload": "429 under a load that the server is too small for",
}
_left_out: Counter[str] = Counter()


# What our own server does not claim.
_OURS = {"scoring", "ranking"}
_NODE = Path(__file__).with_name("node")


def _without() -> set[str]:
    named = {name.strip() for name in os.environ.get("BESTIARY_CONFORMANCE_WITHOUT", "").split(",")} - {""}
    if unknown := named - set(NEEDS):
        raise pytest.UsageError(f"BESTIARY_CONFORMANCE_WITHOUT: {unknown} is none of {sorted(NEEDS)}")
    url = os.environ.get("BESTIARY_CONFORMANCE_URL")
    if url and not os.environ.get("BESTIARY_CONFORMANCE_KEY"):
        named.add("key")
    return named | ({"overload"} if url else _OURS)


def _has_node() -> bool:
    """Whether node is here, and the client; it is installed where npm can."""
    if shutil.which("node") is None:
        return False
    if (_NODE / "node_modules" / "openai" / "package.json").exists():
        return True
    if shutil.which("npm") is None:
        return False
    install = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=0"]
    try:
        return (
            subprocess.run(install, cwd=_NODE, capture_output=True, timeout=60, check=False).returncode == 0
        )
    except subprocess.TimeoutExpired:
        return False


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"needs(*names): of a server; {', '.join(NEEDS)}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, and count, what the server does not claim."""
    absent, kept = _without(), list[pytest.Item]()
    if any("node" in mark.args for item in items for mark in item.iter_markers("needs")) and not _has_node():
        absent.add("node")
    for item in items:
        asked = {name for mark in item.iter_markers("needs") for name in mark.args}
        assert asked <= set(NEEDS), asked
        if lacking := sorted(asked & absent):
            _left_out[lacking[0]] += 1
        else:
            kept.append(item)
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name, count in sorted(_left_out.items()):
        terminalreporter.write_line(f"not claimed: {name} ({NEEDS[name]}): {count} tests left out")


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The server under test, with a model that answers."""
    url = os.environ.get("BESTIARY_CONFORMANCE_URL", "").rstrip("/")
    if not url:
        from tests.conformance.own import serving_own

        with serving_own(tmp_path_factory.mktemp("conformance"), "--deterministic") as own:
            yield own
        return
    key = os.environ.get("BESTIARY_CONFORMANCE_KEY", "")
    model = os.environ.get("BESTIARY_CONFORMANCE_MODEL") or _first(url, key)
    yield Target(url, model, os.environ.get("BESTIARY_CONFORMANCE_EMBEDDER", model), key, ours=False)


def _first(url: str, key: str) -> str:
    with openai.OpenAI(base_url=url, api_key=key or "none") as client:
        return next(iter(client.models.list())).id


@pytest.fixture(scope="session")
def unclaimed() -> frozenset[str]:
    """What the server does not claim."""
    return frozenset(_without())


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[Target]:
    """Our own server, which computes two answers at once and lets two more wait."""
    from tests.conformance.own import serving_own

    with serving_own(tmp_path, "--max-streams", "2", "--queue", "2") as own:
        yield own


@pytest.fixture
def wire(target: Target) -> Iterator[httpx2.Client]:
    """HTTP itself: what is really sent."""
    with httpx2.Client(base_url=target.url, headers=target.headers, timeout=SECONDS) as client:
        yield client


@pytest.fixture
def client(target: Target) -> Iterator[openai.OpenAI]:
    """OpenAI's client."""
    with target.client() as client:
        yield client
