"""Our own server over tiny models, for the suite to be held to without a name in the environment."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from tests.conformance.target import Target
from tests.serve import serving
from tests.unit.run import chatmodel

KEY = "a-key-of-the-tests"


def published(folder: Path) -> Path:
    """Write a tiny chat model, whose context holds a prompt that tells of functions, letter by letter."""
    model = folder / "tiny"
    model.mkdir()
    chatmodel.publish(model)
    config = model / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 4096}))
    return model


@contextlib.contextmanager
def serving_own(folder: Path, *options: str) -> Iterator[Target]:
    """Serve it with a key."""
    named = ("--served-name", "tiny", "--chat-template", "qwen", *options)  # Qwen's format has functions
    with serving.running(published(folder), *named, log=folder / "server.log", key=KEY) as server:
        yield Target(f"{server.url}/v1", "tiny", "tiny", KEY, ours=True)
