"""The process: uvicorn around the application, signals, and an end that loses nothing it can keep.

The first SIGTERM or SIGINT: new requests are refused, open answers are finished within the grace. The second,
or the end of the grace: open streams end with an error event, and the process is gone within two seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable, Iterator

import uvicorn

from ..errors import RequestError
from .app import application
from .patience import MOST_HEAD, PatientProtocol
from .service import Service
from .settings import Settings

_TICK, _ABORT_SECONDS = 0.05, 1.0


class _Uvicorn(uvicorn.Server):
    """uvicorn whose signals are ours: its own end open streams, or wait for them without an end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Server:
    """One server. told: called with its port and its service when requests can be answered."""

    def __init__(
        self,
        settings: Settings,
        *,
        told: Callable[[int, Service], None] = lambda port, service: None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.service = Service(settings, progress)
        self._settings, self._told = settings, told
        self._asked_to_stop = 0
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until a signal. Raises RequestError for an address that cannot be had, BestiaryError for a
        model that cannot be opened.
        """
        for name in ("uvicorn.error", "uvicorn.access"):
            logger = logging.getLogger(name)
            # Half of what it says is about clients that do not speak HTTP; requests have a log of their own.
            logger.handlers, logger.propagate = [logging.NullHandler()], False
        server = _Uvicorn(self._config())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        serving = asyncio.create_task(self._serve(server))
        stopping = asyncio.create_task(self._stop.wait())
        try:
            opening = asyncio.create_task(self._opened(server, serving))
            await asyncio.wait({opening, stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                await opening
                await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
            opening.cancel()
            await self._drain()
        finally:
            stopping.cancel()
            server.should_exit = True
            await serving

    def _config(self) -> uvicorn.Config:
        return uvicorn.Config(
            application(self.service),
            host=self._settings.host.strip("[]"),
            port=self._settings.port,
            http=PatientProtocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            h11_max_incomplete_event_size=MOST_HEAD,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=_ABORT_SECONDS,  # type: ignore[arg-type]
            backlog=512,
        )

    async def _serve(self, server: uvicorn.Server) -> None:
        try:
            await server.serve()
        except SystemExit as left:
            # What uvicorn does where the address cannot be had.
            address = f"{self._settings.host}:{self._settings.port}"
            raise RequestError(
                f"{address} cannot be listened on: it is taken, or no address of this machine\nTry: --port 0"
            ) from left

    async def _opened(self, server: uvicorn.Server, serving: asyncio.Task[None]) -> None:
        while not server.started:
            if serving.done():
                await serving
                return
            await asyncio.sleep(_TICK)
        await self.service.opened()
        self._told(server.servers[0].sockets[0].getsockname()[1], self.service)

    def _signalled(self) -> None:
        self._asked_to_stop += 1
        self.service.stopping = True
        self._stop.set()

    async def _drain(self) -> None:
        """Wait for open answers until the grace is over or another signal comes; then end them."""
        self.service.stopping = True
        end = time.monotonic() + self._settings.grace
        while self.service.gate.inside and self._asked_to_stop < 2 and time.monotonic() < end:
            await asyncio.sleep(_TICK)
        self.service.link.lose("the server is stopping, and this answer was not finished in time")


def serve(
    settings: Settings,
    *,
    told: Callable[[int, Service], None] = lambda port, service: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Serve until a signal; see Server.run."""

    async def run() -> None:
        await Server(settings, told=told, progress=progress).run()

    asyncio.run(run())
