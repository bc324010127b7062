"""The outermost layer: what goes wrong becomes an answer, and every request is counted and written down.

A request that comes while the server stops is refused with 503 and the end of its connection; the two paths
that tell how it is are not.
"""

from __future__ import annotations

import asyncio
import traceback
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .answering import json_response
from .errors import APIError, of
from .guard import ACCESS
from .logs import Record
from .patience import MOST_HEAD
from .service import Service

_ALWAYS = ("/health", "/metrics")
_PAGE = "page"  # one of its files
_GONE = 499  # nginx's: the client closed the request
_WORDS = {404: "there is nothing at this path", 405: "this path does not take this method"}


class Boundary:
    """An ASGI application around all others."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service
        self.state = service  # where Starlette's own applications keep it: request.app.state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            scope["app"] = self
            await self._app(scope, receive, send)
            return
        record, status = Record(), [0]
        scope["app"] = self
        scope.setdefault("state", {})["record"] = record

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", record.request.encode())]
            await send(message)

        try:
            if self._service.stopping and scope["path"] not in _ALWAYS:
                raise APIError(503, "the server is stopping", code="stopping", after=1, close=True)
            _check_head(scope)
            await self._app(scope, receive, sending)
        except (ClientDisconnect, asyncio.CancelledError) as left:
            status[0] = status[0] or _GONE
            if isinstance(left, asyncio.CancelledError):
                raise
        except Exception as error:  # noqa: BLE001 (the boundary of one request)
            await self._answer(error, record, status[0] > 0, scope, receive, sending)
        finally:
            self._note(scope, record, status[0])

    async def _answer(
        self, error: Exception, record: Record, begun: bool, scope: Scope, receive: Receive, send: Send
    ) -> None:
        said = _http(error) if isinstance(error, HTTPException) else of(error)
        record.error = said.code or type(error).__name__
        if said.code == "defect":
            where = traceback.extract_tb(error.__traceback__)[-1]
            self._service.log.event(
                "defect",
                error=type(error).__name__,
                at=f"{where.name}:{where.lineno}",
                request=record.request,
                # Its words may be the prompt's.
                detail=str(error)[:200] if self._service.settings.log_prompts else None,
            )
        if not begun:
            await json_response(said.body, said.status, said.headers)(scope, receive, send)

    def _note(self, scope: Scope, record: Record, status: int) -> None:
        route = _route(scope, status)
        self._service.metrics.requests.labels(route, str(status)).inc()
        if route == _PAGE:  # a visit would be forty lines
            return
        self._service.log.request(record, method=scope["method"], route=route, status=status)


def _check_head(scope: Scope) -> None:
    """Raise APIError for a head that is too large: h11 bounds only those that come in several pieces."""
    size = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    if size + len(scope["path"]) + len(scope["query_string"]) > MOST_HEAD:
        raise APIError(431, "the head of the request has more than 16 KiB", code="head_too_large", close=True)


def _http(error: HTTPException) -> APIError:
    """Return Starlette's 404 or 405 in our shape."""
    words = _WORDS.get(error.status_code, "this request cannot be answered")
    return APIError(error.status_code, words, headers=dict(error.headers or {}))


def _route(scope: Scope, status: int) -> str:
    """Return the route as counts name it: never a path that a client made up."""
    path: Any = scope["path"]
    if path in ACCESS or path == "/":
        return str(path)
    if status == 200 and not path.startswith("/v1/"):
        return _PAGE
    if path.startswith("/v1/models/"):
        return "/v1/models/{id}"
    return "other"
