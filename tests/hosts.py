"""A host on 127.0.0.1 that answers as it is told: for models that an operator computes."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote


@dataclass
class Reply:
    """One answer. packets: sent one by one as a stream. broken: the connection ends within it.

    silence: seconds before the answer; rest: between packets.
    """

    body: bytes = b""
    status: int = 200
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    packets: Sequence[bytes] | None = None
    broken: bool = False
    silence: float = 0
    rest: float = 0


@dataclass
class Asked:
    """One request."""

    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Host:
    """What was asked, and what is answered: by the end of a path, the last of them for ever."""

    url: str
    replies: dict[str, list[Reply]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)

    def answers(self, path: str, *replies: Reply) -> None:
        self.replies[path] = list(replies)

    def json(self, path: str, value: object, status: int = 200, **headers: str) -> None:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        self.answers(path, Reply(json.dumps(value).encode(), status, headers=named))

    def reply(self, path: str) -> Reply:
        found = next((replies for end, replies in self.replies.items() if path.endswith(end)), None)
        if found is None:
            return Reply(b'{"error": {"message": "no such path", "code": "not_found"}}', 404)
        return found.pop(0) if len(found) > 1 else found[0]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    host: Host

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client had heard enough
            super().handle()

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(self.path)
        self.host.asked.append(Asked(path, dict(self.headers), json.loads(data)))
        reply = self.host.reply(path)
        self.host.gone.wait(reply.silence)
        self._send(reply)

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.kind)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.packets is None:
            self.send_header("Content-Length", str(len(reply.body) + 10 * reply.broken))
            self.end_headers()
            self.wfile.write(reply.body)
        else:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for packet in reply.packets:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(packet), packet))
                self.wfile.flush()
                self.host.gone.wait(reply.rest)
            self.wfile.write(b"" if reply.broken else b"0\r\n\r\n")
        self.wfile.flush()
        self.close_connection = reply.broken


@contextlib.contextmanager
def host() -> Iterator[Host]:
    """Run a host until the end of a test."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    found = Host(f"http://127.0.0.1:{server.server_port}")
    server.RequestHandlerClass = type("Handler", (_Handler,), {"host": found})
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield found
    finally:
        found.gone.set()
        server.shutdown()
        server.server_close()
        thread.join()


def sse(*events: object) -> bytes:
    """Write events as OpenAI's operators do; a text stands as it is."""
    lines = [event if isinstance(event, str) else json.dumps(event, ensure_ascii=False) for event in events]
    return "".join(f"data: {line}\n\n" for line in lines).encode()


def frame(payload: object, *, event: str = "chunk", message: str = "event") -> bytes:
    """Write one frame of application/vnd.amazon.eventstream; a chunk's payload is packed as Bedrock does."""
    kind = ":exception-type" if message == "exception" else ":event-type"
    data = json.dumps(payload).encode()
    if event == "chunk":
        data = json.dumps({"bytes": base64.b64encode(data).decode()}).encode()
    headers = b""
    for name, value in ((":message-type", message), (kind, event), (":content-type", "application/json")):
        headers += struct.pack(">B", len(name)) + name.encode()
        headers += b"\x07" + struct.pack(">H", len(value)) + value.encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(data), len(headers))
    prelude += struct.pack(">I", binascii.crc32(prelude))
    whole = prelude + headers + data
    return whole + struct.pack(">I", binascii.crc32(whole))
