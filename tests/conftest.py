"""What holds for every test: fixed seeds, no network; tests whose data is absent are left out and counted."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before any test imports a library that reads them.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
# Threads that wait by spinning make everything several times slower on a machine that does other things too.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import hypothesis
import pytest
import torch

from tests import browsers
from tests import goldens as reference_results

# The same examples every run, so that a change is judged by what it changed; `make nightly` draws new ones.
_settings = hypothesis.settings(deadline=None, print_blob=True)
hypothesis.settings.register_profile("default", _settings, derandomize=True)
hypothesis.settings.register_profile("nightly", _settings, derandomize=False, max_examples=2000)
hypothesis.settings.load_profile("default")
# One thread for each of several processes: they share the cores.
_threads = "1" if "PYTEST_XDIST_WORKER" in os.environ else "2"
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", _threads)))

# Tests that ask for these fixtures, or have these markers, need data that a clone does not carry.
_GOLDENS = "goldens"
_BROWSER = "browser"
_MODELS = {"default_model": "smollm2", "minilm": "minilm"}  # by name in the roster
_left_out: dict[str, int] = {}


@pytest.fixture(scope="session")
def goldens() -> Path:
    """The folder of reference results; tests that ask for it are left out where there is none."""
    folder = reference_results.root()
    assert folder is not None, "left out at collection"
    return folder


@pytest.fixture(scope="session")
def default_model() -> Path:
    """The default model in the local cache; tests that ask for it are left out where it was never pulled."""
    return _pulled("default_model")


@pytest.fixture(scope="session")
def minilm() -> Path:
    """MiniLM, an encoder, in the local cache; tests that ask for it are left out as for the default model."""
    return _pulled("minilm")


def _pulled(name: str) -> Path:
    path = _model(name)
    assert path is not None, "left out at collection"
    return path


def _model(name: str) -> Path | None:
    from bestiary import hub
    from bestiary.errors import HubError

    try:
        return hub.resolve(_MODELS[name])
    except HubError:
        return None


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# Data that is absent.


def _empty(item: pytest.Item) -> bool:
    """Tell whether pytest made this item of an empty parameter set (it marks it as skipped)."""
    reasons = (str(mark.kwargs.get("reason", "")) for mark in item.iter_markers("skip"))
    return any("empty parameter set" in reason for reason in reasons)


def _needs(item: pytest.Item) -> set[str]:
    """Name the fixtures and markers of a test: either asks for data."""
    return {*getattr(item, "fixturenames", ()), *(mark.name for mark in item.iter_markers())}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, and count, the tests whose reference results, model or browser are absent."""
    no_results = reference_results.root() is None
    asked = set().union(*map(_needs, items))
    absent = {name for name in _MODELS if name in asked and _model(name) is None}
    kept: list[pytest.Item] = []
    for item in items:
        names = _needs(item)
        if no_results and (_GOLDENS in names or _empty(item)):
            why = "reference results (../shared/goldens or $BESTIARY_GOLDENS)"
        elif _BROWSER in names and browsers.chromium() is None:
            why = "Chromium (apt-get install chromium)"
        elif lacking := sorted(absent & names):
            why = f"{lacking[0].replace('_', ' ')} (bestiary pull {_MODELS[lacking[0]]})"
        else:
            kept.append(item)
            continue
        _left_out[why] = _left_out.get(why, 0) + 1
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail a test that lost its parameters for another reason: it would check nothing."""
    if _empty(item):
        pytest.fail("its list of parameters is empty", pytrace=False)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that prints what this one left out; all of them left out the same."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = dict(_left_out)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what one of several processes left out."""
    _left_out.update(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out, so that a short run is never mistaken for a full one."""
    for why, count in sorted(_left_out.items()):
        terminalreporter.write_line(f"not found: {why}: {count} tests left out")


# No network.

_attempts: list[str] = []
_NAMED_LOCAL = {"", "localhost", None}


def _is_local(host: object) -> bool:
    host = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if host in _NAMED_LOCAL:
        return True
    try:
        return ipaddress.ip_address(str(host).partition("%")[0]).is_loopback
    except ValueError:
        return False


def _no_network(event: str, args: tuple[Any, ...]) -> None:
    """Refuse what leaves this machine, and remember it: the code under test may swallow the refusal."""
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = args[1]
        host = address[0] if isinstance(address, tuple) else None  # a string is a Unix socket's path
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = args[0]
    else:
        return
    if not _is_local(host):
        _attempts.append(f"{event} {host!r}")
        raise PermissionError(f"tests open no network connection: {event} {host!r}")


sys.addaudithook(_no_network)


@pytest.fixture(autouse=True)
def _fail_on_network() -> Iterator[None]:
    _attempts.clear()
    yield
    assert not _attempts, f"this test reached for the network: {_attempts}"
