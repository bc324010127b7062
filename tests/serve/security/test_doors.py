"""Who may ask: every route, by every method, in every spelling of its path and of its Host."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from bestiary.serve.app import routes
from bestiary.serve.guard import ACCESS
from bestiary.serve.routes import page
from tests.serve.security.conftest import PAGE, Watched
from tests.serve.security.sockets import Reply, request, send

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get", "BREW"]
KEYED = sorted(path for path, access in ACCESS.items() if access == "key")
MODELS = "/v1/models"


def test_every_route_is_decided_on() -> None:
    assert {route.path for route in routes()} == set(ACCESS)
    assert [path for path, access in ACCESS.items() if access == "public"] == ["/health"]


def test_the_page_is_files_alone() -> None:
    assert all(route.methods == {"GET", "HEAD"} for route in page.routes())


@pytest.mark.parametrize("method", METHODS)
def test_no_route_is_open_without_the_key(watched: Watched, method: str) -> None:
    open_to = {}
    for path in [*KEYED, "/none", "/v1", "/v1/none", "/metrics/"]:
        spelt = path.replace("{id:path}", "tiny")
        open_to[spelt] = send(watched.server.port, request(method, spelt)).status
    assert {path: status for path, status in open_to.items() if status not in (400, 401)} == {}


# Each is sent without a key and must not be answered as if there were one: (request line's path, Host, more).
_FORMS: list[tuple[str, str, tuple[str, ...]]] = [
    (MODELS, "a/?", ()),
    (MODELS, "a/v1?", ()),
    (MODELS, "localhost/health?", ()),
    (MODELS, "localhost#", ()),
    (MODELS, "localhost/health#", ()),
    (MODELS, "health", ()),
    (MODELS, "localhost:1/health", ()),
    (MODELS, "localhost@evil.example", ()),
    (MODELS, "", ()),
    (MODELS, "[::1]", ()),
    (MODELS, "localhost\t", ()),
    (MODELS, "localhost, evil.example", ()),
    (MODELS, "localhost", ("Host: /health",)),
    (MODELS, "localhost", ("X-Forwarded-Host: localhost/health?", "X-Forwarded-Prefix: /health")),
    (MODELS, "localhost", ("X-Original-URL: /health", "X-Rewrite-URL: /health")),
    (MODELS, "localhost", ("Forwarded: for=127.0.0.1;host=localhost;proto=http",)),
    (MODELS, "localhost", ("X-Forwarded-For: 127.0.0.1", "X-Real-IP: 127.0.0.1")),
    (MODELS, "localhost", ("X-HTTP-Method-Override: OPTIONS",)),
    ("http://localhost/v1/models", "localhost", ()),
    ("http://localhost/health/../v1/models", "localhost", ()),
    ("http://a@localhost/v1/models", "localhost", ()),
    ("//v1/models", "localhost", ()),
    ("/v1//models", "localhost", ()),
    ("//localhost/v1/models", "localhost", ()),
    ("/./v1/models", "localhost", ()),
    ("/health/../v1/models", "localhost", ()),
    ("/health/..%2fv1/models", "localhost", ()),
    ("/health%2f..%2fv1%2fmodels", "localhost", ()),
    ("/%2fv1/models", "localhost", ()),
    ("/v1%2fmodels", "localhost", ()),
    ("/%76%31/models", "localhost", ()),
    ("/v1/models;/health", "localhost", ()),
    ("/v1;x/models", "localhost", ()),
    ("/V1/models", "localhost", ()),
    ("/v1/models/", "localhost", ()),
    ("/v1/models?/health", "localhost", ()),
    ("/health;/../v1/models", "localhost", ()),
    ("/v1/models#/health", "localhost", ()),
    ("/health\\..\\v1\\models", "localhost", ()),
    ("/v1/models%00/health", "localhost", ()),
    ("/v1/models%0d%0aX:/health", "localhost", ()),
    ("/v1/models/../../health/../v1/models", "localhost", ()),
    ("*", "localhost", ()),
    ("v1/models", "localhost", ()),
    ("/\u00e9/../v1/models", "localhost", ()),
]


def _shut(reply: Reply) -> None:
    assert reply.status in (0, 400, 401, 403, 404, 405, 421), reply
    assert b'"tiny"' not in reply.body, reply


def test_there_are_forty_forms() -> None:
    assert len(_FORMS) >= 40


@pytest.mark.parametrize(("path", "host", "more"), _FORMS)
def test_no_spelling_gets_past_the_key(watched: Watched, path: str, host: str, more: tuple[str, ...]) -> None:
    _shut(send(watched.server.port, request("GET", path, host=host, headers=more)))


_SMUGGLED = (
    b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
)


_TWO_LENGTHS = (
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nContent-Length: 40\r\n\r\n"
    b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
)


@pytest.mark.parametrize(
    "data",
    [
        b"GET /v1/models HTTP/1.1\r\n\r\n",
        b"GET /v1/models HTTP/1.0\r\n\r\n",
        b"GET /v1/models\r\n\r\n",
        b"GET /v1/models HTTP/2.0\r\nHost: localhost\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\n Host: localhost\r\n\r\n",
        b"GET /v1/models HTTP/1.1\nHost: localhost\n\n",
        b"GET  /v1/models  HTTP/1.1\r\nHost: localhost\r\n\r\n",
        _TWO_LENGTHS,
        _SMUGGLED,
        _SMUGGLED.replace(b"chunked", b"xchunked"),
        _SMUGGLED.replace(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked, identity"),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_no_framing_gets_past_the_key(watched: Watched, data: bytes) -> None:
    reply = send(watched.server.port, data, end=True)
    assert b'"tiny"' not in reply.body, reply
    assert reply.status in (0, 200, 400, 401, 403, 404, 405, 501, 505), (
        reply
    )  # 200: /health, asked before the rest


@pytest.mark.parametrize(
    "given",
    [
        "Bearer",
        "Bearer ",
        "Bearer wrong-key-wrong-key",
        "Bearer a-key-of-the-test",
        "Bearer a-key-of-the-testss",
        "Bearer A-KEY-OF-THE-TESTS",
        "Basic a-key-of-the-tests",
        "a-key-of-the-tests",
        "Bearera-key-of-the-tests",
        "Bearer null",
        "Bearer undefined",
        "Bearer a-key-of-the-tests,x",
        "Bearer *",
        "Bearer \xff\xfe",
        "Bearer %",
    ],
)
def test_no_other_key_opens(watched: Watched, given: str) -> None:
    data = request("GET", MODELS, headers=(f"Authorization: {given}",))
    assert send(watched.server.port, data).status == 401


def test_two_keys_are_none(watched: Watched) -> None:
    two = ("Authorization: Bearer wrong", f"Authorization: Bearer {watched.server.key}")
    assert send(watched.server.port, request("GET", MODELS, headers=two)).status in (400, 401)
    assert send(watched.server.port, request("GET", MODELS, headers=two[::-1])).status in (400, 401)
    assert send(watched.server.port, request("GET", MODELS, headers=two[1:])).status == 200


# Without a key the way in is the browser of whoever sits here: rebinding (Host), other pages (Origin).


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.nip.io", "localhost.evil.example"]
)
def test_a_foreign_host_is_refused(unlocked: Watched, method: str, host: str) -> None:
    for path in ("/health", "/", MODELS, "/v1/chat/completions", "/v1/load_lora_adapter"):
        reply = send(unlocked.server.port, request(method, path, host=host))
        assert reply.status in (400, 403), (path, reply)


_ORIGINS = ["http://evil.example", "https://evil.example", "null", "http://localhost.evil.example", "file://"]
_ORIGINS += ["http://localhost:1", "http://127.0.0.1", "http://[::1]:3000", "chrome-extension://aaaa", "*"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("origin", _ORIGINS)
def test_a_foreign_page_is_refused(unlocked: Watched, method: str, origin: str) -> None:
    host = f"localhost:{unlocked.server.port}"
    for path in (MODELS, "/v1/chat/completions", "/v1/load_lora_adapter"):
        headers = (
            f"Origin: {origin}",
            "Access-Control-Request-Method: POST",
            "Content-Type: application/json",
        )
        reply = send(unlocked.server.port, request(method, path, host=host, headers=headers))
        assert reply.status in (400, 403), (path, reply)
        assert not [name for name in reply.headers if name.startswith("access-control")], reply


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_a_form_of_a_page_is_no_request(unlocked: Watched, kind: str) -> None:
    """What a browser sends without asking first is never read, also where it leaves the Origin out."""
    headers = (f"Content-Type: {kind}",) if kind else ()
    body = b'{"messages":[{"role":"user","content":"a"}]}'
    data = request("POST", "/v1/chat/completions", body=body, headers=headers)
    assert send(unlocked.server.port, data).status == 415


def test_an_allowed_page_is_named_and_no_other(watched: Watched) -> None:
    with watched.server.client() as client:
        asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
        before = client.options("/v1/chat/completions", headers=asked)
        assert before.headers["access-control-allow-origin"] == PAGE
        assert "access-control-allow-credentials" not in before.headers
        assert client.get("/v1/models", headers={"Origin": PAGE}).headers["vary"].lower() == "origin"
        assert client.get("/v1/models", headers={"Origin": "https://evil.example"}).status_code == 403
        assert client.get("/v1/models", headers={"Origin": PAGE, "Authorization": ""}).status_code == 401


# Where it listens.


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_no_other_machine_is_let_in_without_a_key(chat_model: Path, host: str) -> None:
    words = [sys.executable, "-m", "bestiary", "serve", str(chat_model), "--host", host, "--port", "0"]
    found = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode not in (0, None)
    assert "Traceback" not in found.stderr
    assert re.search(r"--host|--api-key", found.stderr), found.stderr


def test_only_the_loopback_is_listened_on(unlocked: Watched) -> None:
    port = f"{unlocked.server.port:04X}"
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    lines = [
        line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]
    ]
    heard = {words[1] for words in lines if words[3] == "0A" and words[1].endswith(f":{port}")}
    assert heard == {f"0100007F:{port}"}


def test_no_header_tells_of_the_software(watched: Watched) -> None:
    with watched.server.client() as client:
        for answer in (client.get("/health"), client.get("/none"), client.get("/v1/models")):
            assert not {"server", "x-powered-by", "via"} & set(answer.headers)
            assert isinstance(answer, httpx2.Response)
