"""`bestiary serve --ray`: connects to a cluster, deploys the application, and takes it away at the end.

Without an address Ray is started on this machine, by this process and for as long as it lives. Its dashboard
and its reports of use stay off.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray import serve

from ...errors import BestiaryError, RequestError
from ..settings import Settings
from .app import Scale, build

NAME = "bestiary"
_OBJECTS = 100 << 20  # bytes of Ray's object store: what is passed here is small, and goes by messages
_TICK = 0.2
_REACH = 5.0  # seconds until an address is given up


def run(
    settings: Settings, scale: Scale, address: str | None, *, told: Callable[[int], None] = lambda port: None
) -> None:
    """Serve until a signal. told: called with the port when requests can be answered.

    address: of the cluster, "HOST:PORT", or "auto" for the one that this machine is part of; None starts one.

    Raises RequestError for a cluster that is not there, BestiaryError for a model that cannot be opened.
    """
    stop = threading.Event()
    cores = max(os.cpu_count() or 1, math.ceil(scale.most * scale.cpus))
    with _connected(address, cores), _signals(stop):
        serve.start(
            proxy_location="HeadOnly", http_options={"host": settings.host.strip("[]"), "port": settings.port}
        )
        try:
            _deploy(settings, scale)
            if not stop.is_set():
                told(settings.port)
            while not stop.wait(_TICK):
                pass
        finally:
            # Open answers are finished within the grace, as each replica was told.
            serve.delete(NAME)
            if address is None:
                serve.shutdown()


def _deploy(settings: Settings, scale: Scale) -> None:
    """Deploy, and wait until requests can be answered."""
    try:
        serve.run(build(settings, scale, name=NAME), name=NAME, route_prefix="/")
    except RuntimeError as error:
        raise BestiaryError(f"the application was not deployed: {_why() or error}") from error


def _why() -> str:
    """Return what the deployment that failed says; of a traceback, its last line."""
    application = serve.status().applications.get(NAME)
    if application is None:
        return ""
    said = next((one.message for one in application.deployments.values() if one.message.strip()), "")
    last = said.rstrip().rpartition("\n")[2].strip()
    return last.partition("Error: ")[2] or last


@contextlib.contextmanager
def _connected(address: str | None, cores: int) -> Iterator[None]:
    """Be part of a cluster until the end of the block. cores: that one which is started here gives out."""
    if address not in (None, "auto"):
        _reach(address)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    how: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address is None:
        how |= {"include_dashboard": False, "object_store_memory": _OBJECTS, "num_cpus": cores}
    try:
        ray.init(address=address or "local", namespace=NAME, **how)
    except (ConnectionError, TimeoutError, ValueError, RuntimeError) as error:
        said = str(error).splitlines()
        raise RequestError(
            f"--ray {address or ''}: no Ray cluster can be joined: {said[0] if said else error!r}"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """Let SIGTERM and SIGINT set `stop` until the end of the block."""
    before = {
        number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _reach(address: str) -> None:
    """Raise RequestError where nothing answers: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in address:
        raise RequestError(
            f"--ray {address[:80]}: start this on a machine of the cluster, with --ray auto or its HOST:PORT"
        )

    async def connect() -> None:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host.strip("[]"), int(port)), _REACH)
        writer.close()

    try:
        asyncio.run(connect())
    except (OSError, TimeoutError, OverflowError) as error:
        raise RequestError(f"--ray {address[:80]}: nothing answers there") from error
