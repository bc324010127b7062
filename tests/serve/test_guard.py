"""Who may ask: every route, every form of a path and of a Host, every Origin."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from bestiary.serve.app import application, routes
from bestiary.serve.guard import ACCESS
from bestiary.serve.service import Service
from bestiary.serve.settings import Opening, Settings
from tests.serve.conftest import KEY
from tests.serve.raw import exchange, status
from tests.serve.serving import Running

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")
OPEN = {"/health"}


def ask(
    settings: Settings, method: str, path: str, *headers: tuple[bytes, bytes]
) -> tuple[int, dict[str, str]]:
    """Ask the application itself, of which no model is open."""
    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Any) -> None:
        said.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": list(headers) or [(b"host", b"localhost")],
    }

    async def run() -> None:
        await application(Service(settings))(scope, receive, send)

    asyncio.run(run())
    found = {name.decode(): value.decode() for name, value in said[0]["headers"]}
    return said[0]["status"], found


def settings(**fields: Any) -> Settings:
    return Settings(opening=Opening(model="nothing"), quiet=True, **fields)


@pytest.mark.parametrize("path", sorted(ACCESS))
def test_every_route_asks_for_the_key_but_health(path: str) -> None:
    keyed = settings(keys=(KEY,))
    for method in METHODS:
        answer, _ = ask(keyed, method, path)
        assert (answer == 401) == (path not in OPEN), f"{method} {path}: {answer}"


def test_the_table_names_every_route_and_no_other() -> None:
    assert {route.path for route in routes()} == set(ACCESS)


def test_a_route_that_nobody_decided_on_keeps_the_server_from_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(ACCESS, "/v1/card")
    with pytest.raises(KeyError, match="/v1/card"):
        application(Service(settings()))


# Paths, and Host headers behind them, of which none may reach a route without the key.
PATHS = (
    "/v1/models", "//v1/models", "/v1//models", "/./v1/models", "/health/../v1/models",
    "/health/..%2fv1/models", "/%76%31/models", "/v1%2fmodels", "/v1/models/", "/v1/models;x",
    "/v1/models?/health", "/v1/models#/health", "/V1/models", "/health%00/v1/models", "/health?x=/v1/models",
    "/health/", "/health;/v1/models", "/health%2f", "/health%3f/../v1/models", "/metrics", "/openapi.json",
    "http://localhost/v1/models", "http://x/health", "/\\v1\\models", "/%2e%2e/v1/models", "*",
    "/v1/models%20", "/v1/models%0d%0aHost:x",
)  # fmt: skip
HOSTS = (
    "localhost/v1?", "x/?", "localhost/health", "localhost?/health", "localhost#", "localhost@evil", "evil",
    "evil:8000", "localhost.evil", "127.0.0.1.evil", "[::2]", "", "localhost evil", "localhost,evil",
    "0.0.0.0",
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_no_form_of_a_path_gets_by_without_the_key(server: Running, path: str) -> None:
    answer = exchange(server, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    # What stands behind the question mark is no part of the path: this is /health, which tells nothing.
    assert status(answer) in ((200,) if path.startswith("/health?") else (400, 401, 404))
    assert b'"context"' not in answer
    assert b"bestiary_requests" not in answer


@pytest.mark.parametrize("host", HOSTS)
def test_a_foreign_host_is_refused_even_with_the_key(server: Running, host: str) -> None:
    head = (
        f"GET /v1/models HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAuthorization: Bearer {KEY}\r\n\r\n"
    )
    assert status(exchange(server, head.encode())) in (400, 403)


@pytest.mark.parametrize(
    "head",
    [
        f"Host: localhost\r\nHost: evil\r\nAuthorization: Bearer {KEY}\r\n",
        f"Authorization: Bearer {KEY}\r\n",
        f"Host: localhost\r\nAuthorization: Bearer {KEY}\r\nAuthorization: Bearer {KEY}\r\n",
        f"Host: localhost\r\nAuthorization: Basic {KEY}\r\n",
        f"Host: localhost\r\nAuthorization: {KEY}\r\n",
        f"Host: localhost\r\nAuthorization: Bearer {KEY[:-1]}\r\n",
        f"Host: localhost\r\nAuthorization: Bearer {KEY}x\r\n",
        "Host: localhost\r\nAuthorization: Bearer \r\n",
        "Host: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
        "Host: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
    ],
)
def test_a_head_that_says_two_things_or_half_a_key_is_refused(server: Running, head: str) -> None:
    answer = exchange(server, f"GET /v1/models HTTP/1.1\r\nConnection: close\r\n{head}\r\n".encode())
    assert status(answer) in (400, 401, 403)
    assert b'"error"' in answer


def test_a_page_of_another_server_may_not_ask(client: httpx2.Client, server: Running) -> None:
    for origin in (
        "http://evil.example",
        "null",
        "https://localhost.evil",
        f"http://localhost:{server.port + 1}",
    ):
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            answer = client.request(method, "/v1/models", headers={"Origin": origin})
            assert answer.status_code == 403, (origin, method)
            assert "access-control-allow-origin" not in answer.headers
    own = client.get("/v1/models", headers={"Origin": f"http://127.0.0.1:{server.port}"})
    assert own.status_code == 200
    assert "access-control-allow-origin" not in own.headers


def test_an_origin_that_is_allowed_is_named_and_never_a_star() -> None:
    origin = b"https://chat.example.org"
    allowing = settings(keys=(KEY,), origins=(origin.decode(),))
    headers = ((b"host", b"localhost"), (b"origin", origin))
    before, named = ask(allowing, "OPTIONS", "/v1/chat/completions", *headers)
    assert before == 204
    assert named["access-control-allow-origin"] == origin.decode()
    assert "access-control-allow-credentials" not in named
    keyed = (b"authorization", f"Bearer {KEY}".encode())
    assert (
        ask(allowing, "GET", "/health", *headers, keyed)[1]["access-control-allow-origin"] == origin.decode()
    )
    assert (
        ask(allowing, "OPTIONS", "/v1/models", (b"host", b"localhost"), (b"origin", b"https://x.org"))[0]
        == 403
    )
