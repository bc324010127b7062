"""HTTP as bytes: requests that no client would send."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass

SECONDS = 45.0


@dataclass(frozen=True)
class Reply:
    """What came back; status 0 where the connection was closed without an answer."""

    status: int
    headers: dict[str, str]
    body: bytes


def send(port: int, data: bytes, *, end: bool = False) -> Reply:
    """Send bytes on a connection of their own and read the first answer. end: close our side behind them."""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        with contextlib.suppress(ConnectionError):  # it was refused before it was read
            connection.sendall(data)
            if end:
                connection.shutdown(socket.SHUT_WR)
        return read(connection)


def read(connection: socket.socket) -> Reply:
    """Read an answer: its head, and as much of its body as it says."""
    data = b""
    try:
        while b"\r\n\r\n" not in data and (part := connection.recv(65536)):
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1."):
            return Reply(0, {}, data)
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        while len(body) < length and (part := connection.recv(65536)):
            body += part
    except (ConnectionError, OSError) as problem:
        if isinstance(problem, TimeoutError):
            raise
        return Reply(0, {}, data)
    return Reply(int(first.split()[1]), headers, body)


def request(
    method: str, path: str, *, host: str = "localhost", body: bytes = b"", headers: tuple[str, ...] = ()
) -> bytes:
    """Write a request with this path exactly as it is."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers, "Connection: close"]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body
