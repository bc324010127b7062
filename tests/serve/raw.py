"""Bytes to a server and back, for what no HTTP client would send."""

from __future__ import annotations

import socket

from tests.serve.serving import Running


def exchange(server: Running, data: bytes, *, seconds: float = 20.0) -> bytes:
    """Send bytes on a connection of their own, and return all that comes until the server ends it."""
    with socket.create_connection(("127.0.0.1", server.port), seconds) as connection:
        connection.sendall(data)
        found = bytearray()
        while part := connection.recv(1 << 16):
            found += part
        return bytes(found)


def status(answer: bytes) -> int:
    """The status of an answer; 0 for none."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0
