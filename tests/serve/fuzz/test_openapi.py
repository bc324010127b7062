"""Requests that schemathesis makes of our OpenAPI file, valid and not: all operations, all of its phases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.serve.fuzz.fields import REQUESTS
from tests.serve.serving import Running

_ROOT = Path(__file__).parents[3]
# Not positive_data_acceptance: a valid body may still ask for what this model lacks. Nor the two about things
# that are made and taken away (ensure_resource_availability, object_level_authorization): there are none.
_CHECKS = [
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance", "negative_data_rejection",
    "missing_required_header", "unsupported_method", "allow_header_conformance", "use_after_free",
    "ignored_auth", "openai_errors",
]  # fmt: skip


def _fuzz(server: Running, folder: Path, *, examples: int, seed: int, seconds: float) -> dict[str, Any]:
    """Return how often each operation was asked. It runs alone: its plug-ins and warnings are not ours."""
    counts = folder / "counts.json"
    words = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", os.devnull, "run"]
    words += [f"{server.url}/openapi.json", "--header", f"Authorization: Bearer {server.key}"]
    words += [
        "--phases",
        "examples,coverage,fuzzing,stateful",
        "--mode",
        "all",
        "--max-examples",
        str(examples),
    ]
    words += ["--checks", ",".join(_CHECKS), "--generation-allow-x00", "true", "--seed", str(seed)]
    words += ["--continue-on-failure", "--no-shrink", "--generation-database", "none", "--no-color"]
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "tests.serve.fuzz.hooks",
        "BESTIARY_FUZZ_COUNTS": str(counts),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")])),
    }
    run = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    found: dict[str, Any] = json.loads(counts.read_text())
    return found


def _check(counts: dict[str, Any], server: Running, examples: int) -> None:
    with server.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    labels = {f"{method.upper()} {path}" for path, operations in paths.items() for method in operations}
    assert set(counts) == labels - {"GET /openapi.json"}, "every operation is asked, beside the file's own"
    few = {
        f"POST {path}": counts[f"POST {path}"]
        for path in REQUESTS
        if counts[f"POST {path}"]["asked"] < examples
    }
    assert few == {}
    statuses = {status for found in counts.values() for status in found if status != "asked"}
    assert not {status for status in statuses if status >= "5"}
    # A fuzzer that is refused at the door tests the door alone.
    assert all(counts[f"POST {path}"].get("200", 0) > 0 for path in REQUESTS if "adapter" not in path)


def test_requests_made_of_the_file_are_answered_as_it_says(fuzzed: Running, tmp_path: Path) -> None:
    _check(_fuzz(fuzzed, tmp_path, examples=100, seed=1, seconds=280), fuzzed, 100)


@pytest.mark.nightly
def test_a_thousand_requests_an_operation_are_answered_as_the_file_says(
    fuzzed: Running, tmp_path: Path
) -> None:
    """New ones every night."""
    seed = int.from_bytes(os.urandom(4), "big")
    _check(_fuzz(fuzzed, tmp_path, examples=1000, seed=seed, seconds=1700), fuzzed, 1000)
