"""Half a head is answered 408, and a reader who has stopped is cut, by clocks made shorter here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn

from bestiary.serve import patience
from bestiary.serve.patience import PatientProtocol


async def flood(scope: Any, receive: Any, send: Any) -> None:
    """Answer with more than any buffer holds."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(4000):
        await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[tuple[uvicorn.Server, int]]:
    config = uvicorn.Config(flood, port=0, http=PatientProtocol, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server, server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        await task


async def connected(port: int, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    await writer.drain()
    return reader, writer


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n", b"HTTP/1.1 408 "),
        (b"G", b"HTTP/1.1 408 "),
        (b"", b""),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * (17 << 10), b"HTTP/1.1 400 "),
    ],
)
def test_half_a_head_is_refused(sent: bytes, said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "HEAD_SECONDS", 0.2)

    async def run() -> bytes:
        async with listening() as (_, port), asyncio.timeout(20):
            reader, writer = await connected(port, sent)
            answer = await reader.read()
            writer.close()
            return answer

    answer = asyncio.run(run())
    assert answer.startswith(said)
    assert bool(said) == (b'"error"' in answer)


def test_a_reader_who_has_stopped_is_cut_and_another_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "STALLED_SECONDS", 0.5)

    async def run() -> int:
        ask = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        async with listening() as (server, port), asyncio.timeout(60):
            _, stalled = await connected(port, ask)
            reader, writer = await connected(port, ask)
            count = 0
            while part := await reader.read(1 << 20):
                count += len(part)
            writer.close()
            while server.server_state.connections:
                await asyncio.sleep(0.05)
            stalled.close()
            return count

    assert asyncio.run(run()) > 4000 * 65536


def test_more_connections_than_there_may_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "MOST_CONNECTIONS", 2)

    async def run() -> bytes:
        async with listening() as (_, port), asyncio.timeout(20):
            kept = [await connected(port, b"G") for _ in range(2)]
            await asyncio.sleep(0.1)
            reader, writer = await connected(port, b"")
            answer = await reader.read()
            for _, other in [*kept, (reader, writer)]:
                other.close()
            return answer

    assert asyncio.run(run()).startswith(b"HTTP/1.1 503 ")
