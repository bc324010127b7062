"""A server with little room, so that no answer is long, and a canary beside all that is done to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.serve.serving import Running, running

KEY = "a-key-of-the-fuzzers"
CONTEXT = 96
_SONG = {
    "messages": [{"role": "user", "content": "Sing."}],
    "max_tokens": 48,
    "temperature": 0.9,
    "seed": 11,
    "logprobs": True,
    "ignore_eos": True,
    "stream": True,
}


@pytest.fixture(scope="session")
def fuzzed(chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of the tiny chat model."""
    folder = tmp_path_factory.mktemp("fuzzed")
    (folder / "adapters").mkdir()
    options = ("--ctx-size", str(CONTEXT), "--max-streams", "8", "--deterministic", "--served-name", "tiny")
    adapters = ("--allow-adapters", str(folder / "adapters"))
    with running(chat_model, *options, *adapters, log=folder / "log", key=KEY) as server:
        yield server


def _sung(client: httpx2.Client) -> list[str]:
    """What the canary sings: every event, less what is another's each time."""
    answer = client.post("/v1/chat/completions", json=_SONG)
    assert answer.status_code == 200, answer.text
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    events = [json.loads(line) for line in lines[:-1]]
    return [json.dumps(event | {"id": "", "created": 0}, sort_keys=True) for event in events]


def _joined(events: list[str]) -> tuple[str, list[float]]:
    """Its letters and its logprobs: how many tokens are in an event is a matter of when they were read."""
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    entries = [entry for one in choices if one["logprobs"] for entry in one["logprobs"]["content"]]
    return "".join(one["delta"].get("content") or "" for one in choices), [one["logprob"] for one in entries]


@pytest.fixture(scope="module", autouse=True)
def canary(fuzzed: Running) -> Iterator[None]:
    """A second client, of whose streams no byte may change, whatever the first one sends."""
    wrong: list[str] = []
    sung = 0
    over = threading.Event()
    with fuzzed.client() as client:
        alone = _joined(_sung(client))

        def sing() -> None:
            nonlocal sung
            while not over.wait(0.05) and not wrong:
                try:
                    now = _joined(_sung(client))
                except (AssertionError, httpx2.HTTPError, ValueError) as problem:
                    wrong.append(repr(problem))
                    return
                sung += 1
                if now != alone:
                    wrong.append(f"{now!r} is not {alone!r}")

        thread = threading.Thread(target=sing, name="canary")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(60)
    assert wrong == []
    assert sung > 0
    assert fuzzed.process.poll() is None
    assert "restart" not in fuzzed.said(), "the worker died"
