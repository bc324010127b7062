"""Server-sent events, byte by byte as they arrive (WHATWG HTML, 9.2.6 "Interpreting an event stream")."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MOST_BYTES = 4 << 20  # of one event; a token's has a few hundred


@dataclass(frozen=True)
class Event:
    """One event. kind: "message" unless the stream says otherwise."""

    data: bytes
    kind: str = "message"


class Events:
    """Finds events in a stream that may be cut anywhere: within a line end, or within a character.

    Lines end with CR LF, LF or CR; `data` of several lines is joined by LF; lines of comments (":") and the
    fields `id` and `retry` say nothing here. Raises ValueError for an event beyond MOST_BYTES.
    """

    def __init__(self) -> None:
        self._line = bytearray()
        self._begun = False  # has a line been read: a byte order mark may stand before the first
        self._after_cr = False
        self._data: list[bytes] = []
        self._kind = ""
        self._size = 0

    def push(self, received: bytes) -> Iterator[Event]:
        """Take what has arrived; yield the events that are whole by now."""
        # LF after CR belongs to it, also when it comes with the next packet.
        if self._after_cr and received:
            received, self._after_cr = received.removeprefix(b"\n"), False
        self._after_cr = self._after_cr or received.endswith(b"\r")
        # bytes.splitlines cuts at CR LF, LF and CR, and at nothing else.
        for part in received.splitlines(keepends=True):
            self._line += part
            self._size += len(part)
            if self._size > MOST_BYTES:
                raise ValueError(f"an event of more than {MOST_BYTES:,} bytes")
            if part.endswith((b"\n", b"\r")):
                yield from self._end_line()

    def flush(self) -> Iterator[Event]:
        """Yield the last event of a stream that ended without an empty line behind it."""
        if self._line:
            yield from self._end_line()
        yield from self._end_event()

    def _end_line(self) -> Iterator[Event]:
        line = bytes(self._line).rstrip(b"\r\n")
        self._line.clear()
        if not self._begun:
            self._begun, line = True, line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            yield from self._end_event()
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._kind = value.decode("utf-8", "replace")
        elif field == b"":
            self._size = sum(
                map(len, self._data)
            )  # a comment keeps the connection open, for hours if need be

    def _end_event(self) -> Iterator[Event]:
        data, kind = self._data, self._kind
        self._data, self._kind, self._size = [], "", 0
        if data:
            yield Event(b"\n".join(data), kind or "message")
