"""Our own server over tiny models, for the suite to be held to without a name in the environment."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.conformance.target import Target
from tests.serve import serving
from tests.unit.run import chatmodel

KEY = "a-key-of-the-tests"


def published(folder: Path) -> Path:
    """Write a tiny chat model into a folder of this one."""
    model = folder / "tiny"
    if not model.exists():
        model.mkdir()
        chatmodel.publish(model)
    return model


@contextlib.contextmanager
def serving_own(folder: Path, *options: str) -> Iterator[Target]:
    """Serve it with a key."""
    named = ("--served-name", "tiny", *options)
    with serving.running(published(folder), *named, log=folder / "server.log", key=KEY) as server:
        yield Target(f"{server.url}/v1", "tiny", "tiny", KEY, ours=True)
