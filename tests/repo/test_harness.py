"""What tests/conftest.py promises, tried on a small checkout: it is what every other test relies on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.sources import ROOT

TESTS = """\
import socket

import pytest
import torch

from tests.goldens import cases


@pytest.mark.parametrize("case", cases("llama-*"))
def test_with_cases(case):
    assert case.name.startswith("llama-")


def test_with_folder(goldens):
    assert goldens.is_dir()


@pytest.mark.nightly
def test_long():
    raise AssertionError


@pytest.mark.parametrize("_", range(2))
def test_seeded(_):
    assert torch.rand(1).item() == pytest.approx(0.49625659)


def test_local_sockets():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    one, other = socket.socketpair()
    one.close(), other.close()
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with this repository's settings and the tests above, and no reference results beside it."""
    folder = tmp_path / "checkout"
    (folder / "tests").mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name in ("conftest.py", "goldens.py", "browsers.py"):
        shutil.copy(ROOT / "tests" / name, folder / "tests")
    (folder / "tests/test_small.py").write_text(TESTS)
    return folder


def _pytest(checkout: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "BESTIARY"))
    }
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=checkout,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stdout + ran.stderr


def test_absent_results_leave_tests_out_and_say_so(checkout: Path) -> None:
    status, output = _pytest(checkout)
    assert status == 0, output
    assert "3 passed, 3 deselected" in output
    assert "reference results (../shared/goldens or $BESTIARY_GOLDENS): 2 tests left out" in output
    assert "skipped" not in output


def test_present_results_are_used(checkout: Path) -> None:
    for name in ("llama-a", "llama-b", "bert-a"):
        (checkout.parent / "shared/goldens" / name).mkdir(parents=True)
    status, output = _pytest(checkout)
    assert status == 0, output
    assert "6 passed, 1 deselected" in output
    assert "left out" not in output


def test_a_pattern_that_matches_nothing_is_an_error(checkout: Path) -> None:
    elsewhere = checkout / "results"
    elsewhere.mkdir()
    status, output = _pytest(checkout, BESTIARY_GOLDENS=str(elsewhere))
    assert status != 0
    assert "no reference result matches 'llama-*'" in output


def test_a_lost_parameter_list_fails(checkout: Path) -> None:
    (checkout.parent / "shared/goldens/llama-a").mkdir(parents=True)
    (checkout / "tests/test_small.py").write_text(
        "import pytest\n@pytest.mark.parametrize('x', [])\ndef test_nothing(x): pass\n"
    )
    status, output = _pytest(checkout)
    assert status != 0
    assert "its list of parameters is empty" in output


@pytest.mark.parametrize(
    "reach",
    [
        "socket.create_connection(('192.0.2.1', 80), timeout=1)",
        "socket.getaddrinfo('example.org', 80)",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 53))",
    ],
)
def test_a_test_that_reaches_for_the_network_fails(checkout: Path, reach: str) -> None:
    """Also where the code under test swallows the refusal."""
    (checkout / "tests/test_small.py").write_text(
        "import contextlib, socket\n"
        f"def test_quietly():\n    with contextlib.suppress(Exception):\n        {reach}\n"
    )
    status, output = _pytest(checkout, "-W", "ignore")
    assert status != 0
    assert "this test reached for the network" in output
