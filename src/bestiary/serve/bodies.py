"""A request's body: read within a bound of bytes and of seconds, checked as JSON, then read as its fields.

pydantic's own parser takes the last of two equal keys and NaN, so the text is checked by the reader of
hostile JSON files first (files/strict_json); fields are read from the bytes, never from a dictionary, which
may hold what JSON cannot.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request

from ..files.strict_json import InvalidJSONError, parse
from .errors import APIError

MOST_BYTES = 4 << 20
MOST_PARTS = 1 << 20  # brackets, commas and colons: half a million ids
BODY_SECONDS = 30.0
_QUICK = 64 << 10  # bytes that are read in a millisecond; more are read beside the loop

T = TypeVar("T", bound=BaseModel)


async def read(request: Request, kind: type[T]) -> T:
    """Return a request's fields.

    Raises APIError: 408 a body that takes longer than 30 seconds, 413 one of more than 4 MiB, 415 one that
    does not say it is JSON, 400 one that is no JSON; ValidationError for fields out of their bounds.
    """
    _check_headers(request)
    data = await _bytes(request)
    if len(data) <= _QUICK:
        return _fields(data, kind)
    return await asyncio.to_thread(_fields, data, kind)


def _check_headers(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise APIError(415, "the content-type should be application/json", code="unsupported_media_type")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise APIError(415, "a compressed body is not read; send it as it is", code="unsupported_media_type")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and (len(length) > 12 or int(length) > MOST_BYTES):
        raise _too_large()


async def _bytes(request: Request) -> bytes:
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                data += part
                if len(data) > MOST_BYTES:
                    raise _too_large()
    except TimeoutError:
        late = f"the body took longer than {BODY_SECONDS:.0f} seconds to arrive"
        raise APIError(408, late, code="request_timeout", close=True) from None
    return bytes(data)


def _too_large() -> APIError:
    return APIError(413, f"the body has more than {MOST_BYTES:,} bytes", code="body_too_large", close=True)


def _fields(data: bytes, kind: type[T]) -> T:
    try:
        parse(data, parts=MOST_PARTS)
    except InvalidJSONError as error:
        where = "" if error.offset is None else f", at byte {error.offset}"
        raise APIError(400, f"the body cannot be read: {error.reason}{where}", code="invalid_json") from None
    return kind.model_validate_json(data)


__all__ = ["MOST_BYTES", "ClientDisconnect", "read"]
