"""uvicorn's HTTP with the clocks that it lacks: for a head that does not come, and a reader who stopped.

A connection may take 10 seconds to bring a request's head (16 KiB at most), and is then answered 408; one
whose reader has taken nothing for 60 seconds while its buffer is full is cut. So neither a thousand half
requests nor readers that sleep hold what others need.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .errors import APIError

HEAD_SECONDS, STALLED_SECONDS = 10.0, 60.0
MOST_HEAD = 16 << 10
MOST_CONNECTIONS = 768  # of the 1,024 descriptors that a process has on most systems


class PatientProtocol(H11Protocol):
    """One connection."""

    _head_timer: asyncio.TimerHandle | None = None
    _stalled_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for a head."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            self._refuse(APIError(503, "too many connections are open", code="too_many_connections", after=1))
            return
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._late)

    def data_received(self, data: bytes) -> None:
        """Take what came; wait for the rest of a head, and no longer once it is there."""
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif self._head_timer is None and self.conn.trailing_data[0]:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self._stop_waiting()
        self._stop_watching()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The buffer is full: the reader has 60 seconds to take some of it."""
        super().pause_writing()
        if self._stalled_timer is None:
            self._stalled_timer = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The reader has taken some."""
        self._stop_watching()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, in the shape of every other error."""
        self._refuse(
            APIError(400, "this is no HTTP request, or its head has more than 16 KiB", code="invalid_http")
        )

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._head_timer = None

    def _stop_watching(self) -> None:
        if self._stalled_timer is not None:
            self._stalled_timer.cancel()
        self._stalled_timer = None

    def _late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing() or self.conn.their_state is not h11.IDLE:
            return
        if not self.conn.trailing_data[0]:
            self.transport.close()  # nothing was said, so nothing is answered: browsers connect ahead
            return
        late = f"the head of the request took longer than {HEAD_SECONDS:.0f} seconds"
        self._refuse(APIError(408, late, code="request_timeout"))

    def _refuse(self, error: APIError) -> None:
        body = json.dumps(error.body).encode()
        headers: list[Any] = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            *((name.encode(), value.encode()) for name, value in error.headers.items()),
        ]
        # In the middle of an answer nothing can be said any more.
        with contextlib.suppress(h11.LocalProtocolError):
            for event in (
                h11.Response(status_code=error.status, headers=headers),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                if (output := self.conn.send(event)) is not None:
                    self.transport.write(output)
        self.transport.close()
