"""Who may ask: keys, the Host header, the Origin header. Refuses before anything of a request is read.

The decision is made on scope["path"], the path of the request line and nothing else: vLLM's was made on a URL
put together with the Host header, and `Host: x/?` got past it (CVE-2026-48746). What is not in the table of
public paths needs a key, whether there is such a route or not.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from typing import Literal

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from .answering import json_response
from .errors import APIError
from .settings import LOOPBACK, Settings

Access = Literal["public", "key"]

# Every route there is; one that is not here keeps the application from starting. The page's files are public.
ACCESS: dict[str, Access] = {
    "/health": "public",
    "/metrics": "key",
    "/openapi.json": "key",
    "/v1/models": "key",
    "/v1/models/{id:path}": "key",
    "/v1/card": "key",
    "/v1/chat/completions": "key",
    "/v1/completions": "key",
    "/v1/embeddings": "key",
    "/v1/responses": "key",
    "/v1/render": "key",
    "/v1/load_lora_adapter": "key",
    "/v1/unload_lora_adapter": "key",
    "/tokenize": "key",
    "/detokenize": "key",
}

_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
_METHODS, _HEADERS, _AGE = "GET, POST", "authorization, content-type", "600"


class Guard:
    """An ASGI application around another that lets pass who may. public: the exact paths without a key."""

    def __init__(self, app: ASGIApp, settings: Settings, public: Iterable[str]) -> None:
        self._app, self._public = app, frozenset(public)
        self._keys = [key.encode() for key in settings.keys]
        names = (*LOOPBACK, *settings.hosts) if settings.loopback else settings.hosts
        self._hosts = frozenset(name.lower().encode() for name in names)
        self._any_host = not settings.loopback and not settings.hosts
        self._origins = frozenset(origin.lower().encode() for origin in settings.origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            host = self._host(scope)
            origin = self._origin(scope, host)
            if origin is not None and scope["method"] == "OPTIONS":
                await _preflight(origin)(scope, receive, send)
                return
            tenant = self._tenant(scope)
        except APIError as error:
            await json_response(error.body, error.status, error.headers)(scope, receive, send)
            return
        scope["state"]["salt"] = tenant
        await self._app(scope, receive, send if origin is None else _allowing(send, origin))

    def _host(self, scope: Scope) -> bytes:
        """Return the Host header. Raises APIError for one that names another machine (DNS rebinding)."""
        found = _all(scope, b"host")
        match = _HOST.fullmatch(found[0]) if len(found) == 1 else None
        if match is None or not (self._any_host or match[1].lower() in self._hosts):
            remedy = "ask by a loopback name, or start the server with --allow-host NAME"
            raise APIError(
                403, f"the Host header names no host of this server: {remedy}", code="host_not_allowed"
            )
        return found[0]

    def _origin(self, scope: Scope, host: bytes) -> bytes | None:
        """Return the Origin that is allowed by name; None for no Origin, or the server's own.

        Raises APIError for a page of another server.
        """
        found = _all(scope, b"origin")
        if not found:
            return None
        origin = found[0].lower()
        if len(found) == 1 and origin in self._origins:
            return found[0]
        if len(found) == 1 and origin in (b"http://" + host.lower(), b"https://" + host.lower()):
            return None
        raise APIError(
            403,
            "this page is of another server; start this one with --allow-origin ORIGIN to let it ask",
            code="origin_not_allowed",
        )

    def _tenant(self, scope: Scope) -> str:
        """Return what keeps one key's cached prompts from another's; "" without a key.

        Raises APIError without a key where one is needed.
        """
        given = self._matched(_all(scope, b"authorization"))
        if given is None and self._keys and scope["path"] not in self._public:
            raise APIError(
                401,
                "an API key is needed: Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )
        return "" if given is None else hashlib.sha256(b"bestiary cache of " + given).hexdigest()

    def _matched(self, headers: list[bytes]) -> bytes | None:
        """Return the key that was given. Each is compared in constant time, and with all of them."""
        if len(headers) != 1 or headers[0][:7].lower() != b"bearer ":
            return None
        given = headers[0][7:].strip()
        matches = [key for key in self._keys if hmac.compare_digest(key, given)]
        return matches[0] if matches else None


def _all(scope: Scope, name: bytes) -> list[bytes]:
    return [value for key, value in scope["headers"] if key == name]


def _preflight(origin: bytes) -> Response:
    """Return the answer to a browser that asks whether a page may ask."""
    headers = {
        "access-control-allow-origin": origin.decode("latin-1"),
        "access-control-allow-methods": _METHODS,
        "access-control-allow-headers": _HEADERS,
        "access-control-max-age": _AGE,
        "vary": "origin",
    }
    return Response(status_code=204, headers=headers)


def _allowing(send: Send, origin: bytes) -> Send:
    """Return a `send` that lets a page read what is sent to it."""

    async def sending(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            headers = [(b"access-control-allow-origin", origin), (b"vary", b"origin")]
            message = {**message, "headers": [*message.get("headers", ()), *headers]}  # type: ignore[misc]
        await send(message)

    return sending  # type: ignore[return-value]
