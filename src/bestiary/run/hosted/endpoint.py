"""An address that answers JSON over HTTP: https (http to this machine), no redirects, bounded time and size.

Proxies are those of the environment (HTTPS_PROXY, NO_PROXY), as for pip and curl; none stands between this
machine and itself. The key goes into one header of one request, and out of every text that comes back.
"""

from __future__ import annotations

import email.utils
import http.client
import ipaddress
import json
import os
import re
import ssl
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, NoReturn
from urllib.parse import SplitResult, urlsplit

from ...errors import HostedError, RequestError
from ...files import strict_json
from .events import Event, Events

MOST_BYTES = 64 << 20  # of an answer, or of a stream
MOST_MESSAGE = 500  # characters of an operator's own words in an error
_BLOCK = 1 << 16
_TIMEOUT = "BESTIARY_HOSTED_TIMEOUT"

_REMEDIES = {
    400: "The operator does not take this request as it is",
    403: "This key may not use this model",
    404: "Look at the model's name and at the address, which ends before /chat/completions (often in /v1)",
    408: "Ask again",
    413: "Ask for less at once",
    429: "Ask again later, or look at what this account may use",
}


def timeout() -> float:
    """Return how many seconds an operator may be silent: $BESTIARY_HOSTED_TIMEOUT, or 120."""
    said = os.environ.get(_TIMEOUT) or "120"
    if not re.fullmatch(r"\d{1,5}(\.\d+)?", said, re.ASCII) or not float(said):
        raise RequestError(f"{_TIMEOUT}={said[:40]!r} should be a number of seconds above 0, such as 120")
    return float(said)


def wait_of(said: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for: a number, or a date (RFC 9110, 10.2.3)."""
    if said is None:
        return None
    if re.fullmatch(r"\d{1,7}(\.\d+)?", said.strip(), re.ASCII):
        return float(said)
    try:
        date = email.utils.parsedate_to_datetime(said)
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


class Endpoint:
    """An address, and the key for it.

    model: the name that was typed, for errors. key: None sends none. Raises RequestError for an address that
    is none, that is not https, or that has a password in it.
    """

    def __init__(self, address: str, key: str | None, *, model: str) -> None:
        self._model, self._key, self._timeout = model, key, timeout()
        self._address = address
        parts = _checked(address)
        here = _is_here(parts.hostname or "")
        if parts.scheme != "https" and not here:
            raise RequestError(
                f"{address[:200]!r}: only https leaves this machine\nTry: https://{parts.netloc}{parts.path}"
            )
        if key is not None and not re.fullmatch(r"[\x21-\x7e]{1,4096}", key):
            raise RequestError(
                "the key for this address holds a character that no header may hold; set it again"
            )
        # An opener of these parts alone follows no redirect, reads no file and speaks no other protocol.
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler({} if here else None),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        ):
            self._opener.add_handler(handler)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Send JSON and return the JSON that comes back. Raises HostedError."""
        with closing(self._open(path, body)) as response:
            return self.json(self._read(response))

    def events(self, path: str, body: dict[str, Any]) -> Iterator[Event]:
        """Send JSON and yield the events that come back, as they come. Raises HostedError."""
        with closing(self._open(path, body)) as response:
            kind = response.headers.get_content_type()
            if kind != "text/event-stream":
                self._fail(f"it answered {kind} in place of a stream of events")
            events, total = Events(), 0
            while received := self._block(response):
                total += len(received)
                if total > MOST_BYTES:
                    self._fail(f"more than {MOST_BYTES:,} bytes came in one stream")
                yield from self._found(events, received)
            yield from events.flush()

    def json(self, data: bytes) -> Any:
        """Return the JSON of an answer or of an event. Raises HostedError."""
        try:
            return strict_json.parse(data)
        except strict_json.InvalidJSONError as error:
            shown = self._clean(data[:60].decode("utf-8", "replace"))
            self._fail(f"it answered something else than JSON ({error}): {shown!r}")

    def failed(self, said: Any) -> NoReturn:
        """Raise the error that the JSON of an event tells of."""
        reason, code = _told(said)
        self._fail(self._clean(reason or "it failed and did not say why"), code=self._clean(code or "error"))

    def _found(self, events: Events, received: bytes) -> list[Event]:
        try:
            return list(events.push(received))
        except ValueError as error:
            self._fail(str(error))

    def _open(self, path: str, body: dict[str, Any]) -> http.client.HTTPResponse:
        request = urllib.request.Request(  # noqa: S310 (the scheme was checked)
            self._address + path,
            data=json.dumps(body, ensure_ascii=False, allow_nan=False).encode(),
            headers={
                "Content-Type": "application/json",
                "Accept": "text/event-stream" if body.get("stream") else "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": "bestiary",
            },
        )
        if self._key is not None:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        try:
            response = self._opener.open(request, timeout=self._timeout)
        except (OSError, http.client.HTTPException, UnicodeError) as error:  # of a host's name
            self._unreachable(error)
        if not isinstance(response, http.client.HTTPResponse):
            self._fail("nothing answered")
        if response.status != 200:
            with closing(response):
                self._refused(response)
        return response

    def _refused(self, response: http.client.HTTPResponse) -> NoReturn:
        status = response.status
        if 300 <= status < 400:
            where = urlsplit(response.headers.get("Location") or "").hostname
            self._fail(
                f"it sends requests on to {self._clean(where or 'nowhere')!r}, and none is sent on",
                code=f"HTTP {status}",
                remedy="Name that address, if it is the one that you mean",
            )
        try:
            reason, code = _told(strict_json.parse(self._read(response)))
        except (strict_json.InvalidJSONError, HostedError):
            reason, code = "", None
        wait = wait_of(response.headers.get("Retry-After"))
        raise HostedError(
            self._model,
            self._clean(reason or http.client.responses.get(status, "it refused")),
            code=f"HTTP {status}" + (f", {self._clean(code)}" if code else ""),
            remedy=self._remedy(status, wait),
            wait=wait,
        )

    def _remedy(self, status: int, wait: float | None) -> str:
        if wait is not None:
            return f"Ask again in {wait:.0f} seconds"
        if status == 401:
            return (
                "No key was sent: set BESTIARY_OPENAI_API_KEY" if self._key is None else "The key was refused"
            )
        return _REMEDIES.get(
            status, "Ask again later" if status >= 500 else "See the operator's documentation"
        )

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        """Read an answer whole: it is complete when its first byte comes, so all of it has the same time."""
        parts, size, end = list[bytes](), 0, time.monotonic() + self._timeout
        while received := self._block(response):
            parts.append(received)
            size += len(received)
            if size > MOST_BYTES:
                self._fail(f"more than {MOST_BYTES:,} bytes came in one answer")
            if time.monotonic() > end:
                self._unreachable(TimeoutError())
        if response.length:
            self._fail(f"the answer was cut off: {response.length} bytes are missing", remedy="Ask again")
        return b"".join(parts)

    def _block(self, response: http.client.HTTPResponse) -> bytes:
        """Return what is there by now, waiting for the first byte of it; nothing at the end."""
        try:
            return response.read1(_BLOCK)
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a chunk of no length
            self._unreachable(error)

    def _unreachable(self, error: Exception) -> NoReturn:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise HostedError(
                self._model,
                f"nothing came for {self._timeout:g} seconds",
                remedy=f"Ask again, or wait longer: {_TIMEOUT}={2 * self._timeout:g}",
            ) from None
        # From None: what a proxy or a server said in the original may hold what was sent to it.
        said = self._clean(str(reason) or type(reason).__name__)
        raise HostedError(
            self._model, f"the connection failed: {said}", remedy="Look at the address, and at HTTPS_PROXY"
        ) from None

    def _fail(self, reason: str, *, code: str | None = None, remedy: str | None = None) -> NoReturn:
        raise HostedError(self._model, reason, code=code, remedy=remedy)

    def _clean(self, text: str) -> str:
        """Return an operator's words as they may be shown: without our key, on one line, not too long."""
        if self._key:
            text = text.replace(self._key, "[the key]")
        text = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * MOST_MESSAGE]).split())
        return text if len(text) <= MOST_MESSAGE else f"{text[:MOST_MESSAGE]}…"


def _checked(address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        found = parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        found = None
    if not found or parts.scheme not in ("http", "https") or not address.isascii():
        raise RequestError(f"{address[:200]!r} is no address\nTry: https://host/v1")
    if parts.username is not None or parts.password is not None:
        raise RequestError("an address with a user or a password in it: keys come from the environment alone")
    if parts.query or parts.fragment:
        raise RequestError(f"{address.partition('?')[0][:200]!r}: an address ends before ? and #")
    return parts


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _told(said: Any) -> tuple[str, str | None]:
    """Return the message and the code in an error's JSON, as OpenAI, vLLM, llama.cpp and FastAPI write it."""
    if not isinstance(said, dict):
        return "", None
    inner = said.get("error", said)
    if not isinstance(inner, dict):
        return str(inner), None
    message = inner.get("message") or inner.get("detail") or ""
    code = inner.get("code") or inner.get("type")
    return (
        message if isinstance(message, str) else json.dumps(message)[:MOST_MESSAGE],
        str(code)[:80] if code else None,
    )
