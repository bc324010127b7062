"""OpenAI's client for Node. Left out, and counted, where node, npm or the package is not to be had."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conformance.target import Target

FOLDER = Path(__file__).with_name("node")
pytestmark = pytest.mark.needs("node")


def test_the_client_for_node(target: Target, unclaimed: frozenset[str]) -> None:
    environment = {
        **os.environ,
        "BESTIARY_CONFORMANCE_URL": target.url,
        "BESTIARY_CONFORMANCE_MODEL": target.model,
        "BESTIARY_CONFORMANCE_EMBEDDER": target.embedder,
        "BESTIARY_CONFORMANCE_KEY": target.key,
        "BESTIARY_CONFORMANCE_WITHOUT": ",".join(sorted(unclaimed)),
        "NO_PROXY": "127.0.0.1,localhost",
    }
    words = ["node", "--test", "--test-reporter=spec", "conformance.test.mjs"]
    run = subprocess.run(
        words, cwd=FOLDER, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert "# skipped 0" in run.stdout.replace("ℹ", "#"), run.stdout[-2000:]
