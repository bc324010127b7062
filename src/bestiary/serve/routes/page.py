"""The page and its files: those that the package has, read once, each with the headers that bind a page."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
}
_INDEX = "index.html"
HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


def routes() -> list[Route]:
    """Return a route for each of the page's files; the index is at /."""
    return [_route(path, data, kind) for path, data, kind in _found(files("bestiary.serve") / "page", "/")]


def _found(folder: Traversable, at: str) -> Iterator[tuple[str, bytes, str]]:
    if not folder.is_dir():
        return
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.is_dir() and not file.name.startswith(("_", ".")):
            yield from _found(file, f"{at}{file.name}/")
        elif (kind := _KINDS.get(f".{file.name.rpartition('.')[2]}")) is not None:
            yield at if at == "/" and file.name == _INDEX else f"{at}{file.name}", file.read_bytes(), kind


def _route(path: str, data: bytes, kind: str) -> Route:
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'

    async def give(http: Request) -> Response:
        headers = {**HEADERS, "content-type": kind, "etag": tag}
        if http.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(data, headers=headers)

    return Route(path, give, methods=["GET"])
