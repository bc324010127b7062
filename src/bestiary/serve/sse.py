"""Server-sent events, and a client that goes away: whatever it asked for ends with its connection.

No middleware stands between an event and the socket: Starlette's BaseHTTPMiddleware keeps events in a queue
without a bound (encode/starlette#1012).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

from starlette.types import Receive, Scope, Send

from .answering import HEADERS, encoded
from .errors import of

DONE = "data: [DONE]\n\n"
_HEAD = {**HEADERS, "content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no"}


def event(value: Any, name: str | None = None) -> str:
    """Return a value as an event, with its name where it has one."""
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {encoded(value)}\n\n"


class EventStream:
    """An answer that is sent as it comes. close: called when it is over or nobody reads it.

    failed: told of an error that ends it. An error after the first event is an event itself.
    """

    def __init__(
        self,
        events: AsyncIterator[str],
        close: Callable[[], None],
        failed: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self._events, self._close, self._failed = events, close, failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = [(name.encode(), value.encode()) for name, value in _HEAD.items()]
        try:
            async with watched(receive, self._close):
                await send({"type": "http.response.start", "status": 200, "headers": head})
                async with aclosing(_ended(self._events, self._failed)) as events:
                    async for text in events:
                        await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._close()


async def _ended(events: AsyncIterator[str], failed: Callable[[BaseException], None]) -> AsyncGenerator[str]:
    """Yield events; an error that ends them as the last one."""
    try:
        async for text in events:
            yield text
    except Exception as error:  # noqa: BLE001 (the status is sent: what is left is to say it in the stream)
        failed(error)
        yield event(of(error).body)


@asynccontextmanager
async def watched(receive: Receive, close: Callable[[], None]) -> AsyncIterator[None]:
    """Call `close` at once when the client goes away within."""
    task = asyncio.create_task(_gone(receive, close))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _gone(receive: Receive, close: Callable[[], None]) -> None:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            close()
            return
