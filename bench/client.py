"""A client of OpenAI's HTTP API over plain sockets: what a server sent, byte by byte, and when.

An SDK hides what a load test looks for: it retries, pools connections, and takes a stream that was cut for
one that ended. This client parses HTTP/1.1's chunked framing (RFC 9112, 7.1) and server-sent events itself,
raises Broken where the framing is, and can leave with a FIN, leave with a RST, or stop reading.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

HEAD_LIMIT = 64 * 1024
LINE_LIMIT = 8 * 1024 * 1024


class Broken(Exception):
    """A reply that is not whole: cut off, or framed wrongly."""


@dataclass(frozen=True)
class Head:
    """Status line and header fields; names in lower case."""

    status: int
    fields: dict[str, str]


@dataclass(frozen=True)
class Reply:
    """A whole answer that was not streamed. seconds: from the connection's start to its last byte."""

    head: Head
    body: bytes
    seconds: float

    @property
    def status(self) -> int:
        """The status code."""
        return self.head.status

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


class Connection:
    """One connection for one request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, port: int, *, buffer: int | None = None) -> AsyncIterator[Connection]:
        """Connect to 127.0.0.1 until the end of the block. buffer: bytes that the kernel may hold for us."""
        sock = socket.socket()
        sock.setblocking(False)
        try:
            if buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
            reader, writer = await asyncio.open_connection(sock=sock, limit=LINE_LIMIT)
        except BaseException:
            sock.close()
            raise
        connection = cls(reader, writer)
        try:
            yield connection
        finally:
            await connection.close()

    async def close(self) -> None:
        """Leave in good order (FIN)."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    def reset(self) -> None:
        """Leave as a crashed client does (RST): the kernel drops what it holds."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def send(
        self, method: str, path: str, body: object = None, *, headers: dict[str, str] | None = None
    ) -> None:
        """Send a request; a body is sent as JSON."""
        data = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + data)
        await self.writer.drain()

    async def head(self) -> Head:
        """Read the status line and the header fields; raises Broken where there are none."""
        try:
            raw = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, OSError) as error:
            raise Broken("the connection ended before a head") from error
        if len(raw) > HEAD_LIMIT:
            raise Broken(f"a head of {len(raw)} bytes")
        first, *rest = raw.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in rest if line)
        return Head(int(first.split()[1]), {name.strip().lower(): value.strip() for name, _, value in pairs})

    async def pieces(self, head: Head) -> AsyncIterator[bytes]:
        """Yield the body as it comes; raises Broken when it ends before its framing says so."""
        try:
            if head.fields.get("transfer-encoding", "").lower() == "chunked":
                while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
                    yield await self.reader.readexactly(size)
                    if await self.reader.readexactly(2) != b"\r\n":
                        raise Broken("a chunk without its line end")
                await self.reader.readexactly(2)
            elif (length := head.fields.get("content-length")) is not None:
                yield await self.reader.readexactly(int(length))
            else:
                while piece := await self.reader.read(65536):
                    yield piece
        except (asyncio.IncompleteReadError, OSError) as error:
            raise Broken("the connection ended within a body") from error

    async def events(self, head: Head) -> AsyncIterator[tuple[str, str]]:
        """Yield (event, data) of each server-sent event; raises Broken for a stream that ends within one."""
        rest = b""
        async for piece in self.pieces(head):
            # The standard allows CR, LF and CRLF; servers of this API write LF or CRLF.
            *whole, rest = (rest + piece).replace(b"\r\n", b"\n").split(b"\n\n")
            for block in whole:
                fields = [line.partition(":") for line in block.decode().split("\n")]
                data = [value.removeprefix(" ") for name, _, value in fields if name == "data"]
                name = next((value.strip() for name, _, value in fields if name == "event"), "message")
                if data:
                    yield name, "\n".join(data)
        if rest.strip():
            raise Broken(f"the stream ended within an event: {rest[:80]!r}")


@dataclass
class Heard:
    """All that came of one stream.

    ids, texts, reasons: by the index of the choice; ids only where the server puts token_ids into its chunks.
    times: seconds after the request was sent, of each chunk that held something of an answer.
    done: the stream ended with [DONE] and whole framing. error: of an error event, or of a refusal's body.
    left: this client went away on purpose.
    """

    status: int = 0
    retry_after: str | None = None
    id: str = ""
    ids: dict[int, list[int]] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    prompt_ids: list[int] | None = None
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    broken: str | None = None
    done: bool = False
    left: bool = False
    chunks: int = 0
    seconds: float = 0.0
    times: list[float] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Every choice ended with a reason, and the stream with [DONE]."""
        return self.done and not self.error and bool(self.texts) and self.reasons.keys() == self.texts.keys()

    @property
    def first(self) -> float:
        """Seconds to the first chunk of an answer."""
        return self.times[0]

    def take(self, said: dict[str, Any], at: float) -> None:
        """Add one chunk."""
        self.id = said.get("id") or self.id
        self.usage = said.get("usage") or self.usage
        for choice in said.get("choices", ()):
            index = choice.get("index", 0)
            delta = choice.get("delta", choice)
            text, ids = delta.get("content", delta.get("text")), choice.get("token_ids")
            if choice.get("prompt_token_ids"):
                self.prompt_ids = choice["prompt_token_ids"]
            if text or ids:
                self.times.append(at)
            self.texts[index] = self.texts.get(index, "") + (text or "")
            self.ids.setdefault(index, []).extend(ids or ())
            if (reason := choice.get("finish_reason")) is not None:
                self.reasons[index] = reason


async def ask(
    port: int, method: str, path: str, body: object = None, *, headers: dict[str, str] | None = None
) -> Reply:
    """Send one request and read its whole answer."""
    start = time.perf_counter()
    async with Connection.open(port) as connection:
        await connection.send(method, path, body, headers=headers)
        head = await connection.head()
        parts = [piece async for piece in connection.pieces(head)]
    return Reply(head, b"".join(parts), time.perf_counter() - start)


Leave = Callable[[Heard], bool]


async def stream(
    port: int,
    body: dict[str, Any],
    *,
    path: str = "/v1/completions",
    leave: Leave | None = None,
    reset: bool = False,
) -> Heard:
    """Ask for a stream and hear it to its end.

    leave: asked after the head and after every event; where it returns True the client goes away, with a RST
    where reset is set. A stream that breaks off is not an exception: `broken` says how.
    """
    heard, start = Heard(), time.perf_counter()
    try:
        async with Connection.open(port) as connection:
            await connection.send("POST", path, {**body, "stream": True})
            await _hear(connection, heard, start, leave)
            if heard.left and reset:
                connection.reset()
    except (Broken, OSError) as error:
        heard.broken = str(error) or type(error).__name__
    heard.seconds = time.perf_counter() - start
    return heard


async def _hear(connection: Connection, heard: Heard, start: float, leave: Leave | None) -> None:
    head = await connection.head()
    heard.status, heard.retry_after = head.status, head.fields.get("retry-after")
    if head.status != 200:
        body = b"".join([piece async for piece in connection.pieces(head)])
        with contextlib.suppress(ValueError):
            heard.error = json.loads(body).get("error")
        return
    if leave is not None and leave(heard):
        heard.left = True
        return
    async for event, data in connection.events(head):
        if data == "[DONE]":
            heard.done = True
            continue
        said = json.loads(data)
        if event == "error" or "error" in said:
            heard.error = said.get("error", said)
            continue
        heard.chunks += 1
        heard.take(said, time.perf_counter() - start)
        if leave is not None and leave(heard):
            heard.left = True
            return
