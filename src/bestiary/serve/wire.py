"""Frames between the front and its worker: four bytes of length, most significant first, then JSON.

No pickle: neither side can make the other run anything. A frame has a bound, so that a length which is not
one ends the connection and not the memory.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

LIMIT = 64 << 20
"""Bytes of a frame. The largest are 2,048 texts to embed, whose ids have 30 MB at most."""
HEADER = struct.Struct(">I")

Message = dict[str, Any]


class BrokenWireError(Exception):
    """The other side sent what is no frame."""


def pack(message: Message) -> bytes:
    """Return a message as a frame. Raises BrokenWireError for one past the limit."""
    data = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    if len(data) > LIMIT:
        raise BrokenWireError(f"a frame of {len(data)} bytes; {LIMIT} is the limit")
    return HEADER.pack(len(data)) + data


def length(header: bytes) -> int:
    """Return how many bytes follow a header. Raises BrokenWireError for more than the limit."""
    (count,) = HEADER.unpack(header)
    if count > LIMIT:
        raise BrokenWireError(f"a frame of {count} bytes is announced; {LIMIT} is the limit")
    return int(count)


def unpack(data: bytes) -> Message:
    """Return the message in a frame's bytes. Raises BrokenWireError for what is no JSON object."""
    try:
        message = json.loads(data.decode("utf-8", "surrogatepass"))
    except ValueError as error:
        raise BrokenWireError(f"a frame is no JSON: {error}") from error
    if not isinstance(message, dict):
        raise BrokenWireError("a frame is no JSON object")
    return message


class Frames:
    """Messages out of bytes as they come, in pieces of any size."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield the messages that these bytes complete. Raises BrokenWireError."""
        self._held += data
        while len(self._held) >= HEADER.size:
            end = HEADER.size + length(bytes(self._held[: HEADER.size]))
            if len(self._held) < end:
                return
            body = bytes(self._held[HEADER.size : end])
            del self._held[:end]
            yield unpack(body)
