"""Errors as OpenAI's clients read them: {"error": {"message", "type", "param", "code"}} and a status.

A message says what is wrong and what to do. It never has a path of this machine, a traceback or the name of
a class: the words of an error that is not for users stay in the log.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ..errors import BestiaryError, RequestError, TemplateError, TokenizerError
from .link import UnavailableError
from .streams import StreamError

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_MOST = 1000
# A path of several parts, which is nobody's business but the operator's; its last part may stay.
_PATH = re.compile(r"(?<![\w:/.])/(?:[\w.+@~-]+/)+([\w.+@~-]*)")
# A class of Python's that a template met.
_CLASS = re.compile(r"\b[A-Z]\w*(?:Error|Exception): ")
# What pydantic puts into a place that is no part of the JSON: the member of a union.
_MEMBER = re.compile(r"[\[\]()]|^(str|int|float|bool|none|nullable|constrained-.*)$")


class APIError(Exception):
    """What a request is answered with in place of what it asked for.

    param: the field that is at fault. code: for programs. after: seconds until it may be asked again. close:
    whether the connection ends.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        after: int | None = None,
        close: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, scrubbed(message), param, code
        self.headers = dict(headers or {})
        if after is not None:
            self.headers["retry-after"] = str(after)
        if close:
            self.headers["connection"] = "close"

    @property
    def body(self) -> dict[str, Any]:
        """The error as JSON."""
        server = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = _TYPES.get(self.status, server)
        said = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": said}


def scrubbed(text: str) -> str:
    """Return a message without paths and without characters that cannot be shown."""
    text = "".join(c if c.isprintable() or c == "\n" else " " for c in text[: 4 * _MOST])
    return _PATH.sub(r"\1", text)[:_MOST]


def of(error: BaseException) -> APIError:
    """Return the answer to a request that met this error."""
    match error:
        case APIError():
            return error
        case ValidationError():
            return _invalid(error)
        case UnavailableError():
            return APIError(503, f"{error}; try again soon", code="model_unavailable", after=1)
        case StreamError():
            return _ended(error)
        case RequestError():
            return APIError(400, str(error), code=_code(str(error)))
        case TemplateError() | TokenizerError():
            return APIError(400, _CLASS.sub("", str(error)))
        case BestiaryError():
            return APIError(500, "the model could not compute this; the server's log says why")
        case TimeoutError():
            return APIError(408, "the request took too long to arrive", code="request_timeout", close=True)
    return APIError(500, "this request met a defect of the server; its log says which", code="defect")


def _ended(error: StreamError) -> APIError:
    match error.kind:
        case "request":
            return APIError(400, error.message, code=_code(error.message))
        case "lost":
            return APIError(503, error.message, code="worker_lost", after=1)
    return APIError(500, "the model could not compute this; the server's log says why", code="defect")


def _code(message: str) -> str | None:
    long = "shorten the prompt" in message or "shorten the source" in message
    return "context_length_exceeded" if long else None


def _invalid(error: ValidationError) -> APIError:
    """Return the first thing that is wrong with a request's fields.

    Of a field that may be of several kinds each kind complains. The one it was meant to be is the one that
    was read furthest, or whose complaint is not that it is another kind.
    """
    every = error.errors(include_url=False, include_context=False)
    first = max(every, key=lambda one: (not one["type"].endswith("_type"), len(one["loc"])))
    param = _place(first["loc"])
    code = None
    match first["type"]:
        case "extra_forbidden":
            wrong, code = "is no field that this server reads; leave it out", "unknown_parameter"
        case "missing":
            wrong, code = "is missing", "missing_required_parameter"
        case _:
            wrong = str(first["msg"]).removeprefix("Value error, ")
            wrong = f"{wrong[:1].lower()}{wrong[1:]}"
    given = first.get("input")
    if isinstance(given, bool | int | float | str) and first["type"] not in ("extra_forbidden", "missing"):
        shown = repr(given)
        wrong += f", not {shown if len(shown) <= 80 else f'{shown[:80]}…'}"
    return APIError(400, f"{param}: {wrong}" if param else wrong, param=param, code=code)


def _place(loc: tuple[int | str, ...]) -> str | None:
    """Return a place in the JSON as OpenAI writes it: messages[0].role."""
    place = ""
    for part in loc:
        if isinstance(part, int):
            place += f"[{part}]"
        elif not _MEMBER.search(part):
            place += f".{part[:80]}" if place else part[:80]
    return place or None
