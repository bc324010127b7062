"""Who is slow, or says too much, takes nothing from others."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.serve.security.conftest import Watched
from tests.serve.security.sockets import read, request, send

_CHAT = {"messages": [{"role": "user", "content": "Hello."}], "max_tokens": 8, "temperature": 0}


@contextlib.contextmanager
def _connections(port: int, count: int, said: bytes) -> Iterator[list[socket.socket]]:
    """Open connections that have said something and say no more."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=45))
            one.sendall(said)
            found.append(one)
        yield found


def _answer(unlocked: Watched) -> str:
    with unlocked.server.client(timeout=30.0) as client:
        answer = client.post("/v1/chat/completions", json=_CHAT)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["message"]["content"])


_HALVES = {
    "nothing": b"",
    "half a line": b"POST /v1/chat/compl",
    "half a head": b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-A: b",
    "no body": request(
        "POST", "/v1/chat/completions", headers=("Content-Type: application/json", "Content-Length: 100")
    ),
    "half a body": request(
        "POST", "/v1/chat/completions", headers=("Content-Type: application/json", "Content-Length: 100")
    )
    + b'{"messages"',
    "half a chunk": request(
        "POST",
        "/v1/chat/completions",
        headers=("Content-Type: application/json", "Transfer-Encoding: chunked"),
    )
    + b"ff\r\n{",
}


@pytest.mark.parametrize("said", _HALVES.values(), ids=_HALVES)
def test_two_hundred_half_requests_stop_nobody(unlocked: Watched, said: bytes) -> None:
    want = _answer(unlocked)
    with _connections(unlocked.server.port, 200, said):
        assert [_answer(unlocked) for _ in range(3)] == [want] * 3


@pytest.mark.nightly
def test_a_head_that_does_not_end_is_ended(unlocked: Watched) -> None:
    """After ten seconds, with 408 and in OpenAI's shape."""
    with _connections(unlocked.server.port, 1, _HALVES["half a head"]) as (one,):
        reply = read(one)
    assert reply.status == 408
    assert json.loads(reply.body)["error"]["code"] == "request_timeout"


def test_readers_that_stopped_stop_nobody(unlocked: Watched) -> None:
    """They ask for a stream, take a little of it, and then nothing more; then they are gone with a reset."""
    want = _answer(unlocked)
    body = json.dumps({**_CHAT, "stream": True, "max_tokens": 400, "ignore_eos": True}).encode()
    asked = request("POST", "/v1/chat/completions", body=body, headers=("Content-Type: application/json",))
    with _connections(unlocked.server.port, 12, asked) as stopped:
        assert _answer(unlocked) == want
        for one in stopped:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert _answer(unlocked) == want


_BOMBS = {
    "one long line": b"X-A: " + b"a" * (1 << 20),
    "one long name": b"a" * (1 << 20) + b": b",
    "many headers": b"\r\n".join(b"X-%d: b" % i for i in range(20_000)),
    "many alike": b"\r\n".join([b"Cookie: a=b"] * 20_000),
    "no end": b"X-A: " + b"a" * (1 << 20) + b"\r\n",
    "folded": b"X-A: b\r\n" + b" c\r\n" * 20_000 + b"X-B: d",
}


@pytest.mark.parametrize("bomb", _BOMBS.values(), ids=_BOMBS)
def test_a_head_that_is_too_long_is_refused(unlocked: Watched, bomb: bytes) -> None:
    """One huge header was enough for vLLM's memory (CVE-2025-48956)."""
    reply = send(unlocked.server.port, b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + bomb + b"\r\n\r\n")
    assert reply.status in (0, 400, 431), reply  # 0: reset, since we were still sending
    assert _answer(unlocked)


def test_a_path_that_is_too_long_is_refused(unlocked: Watched) -> None:
    assert send(unlocked.server.port, request("GET", "/" + "a" * (1 << 20))).status in (0, 400, 414, 431)
    assert send(unlocked.server.port, request("GET", "/" + "a" * 8000)).status == 404
    assert send(unlocked.server.port, request("GET", "/v1/models?" + "a=b&" * 2000)).status in (200, 400)
