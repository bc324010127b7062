"""OpenAI's shape of an error, and nothing in it that is not for clients."""

from __future__ import annotations

import json

from tests.serve.leaks import leaks

_FIELDS = {"message", "type", "param", "code"}


def problem(status: int, kind: str, body: bytes, sent: str = "") -> str | None:
    """Say what is wrong with an answer: a failure of the server, or an error of another shape; or None."""
    if status < 400:
        return None
    if status >= 500:
        return f"status {status}: {body[:300]!r}"
    if not kind.startswith("application/json"):
        return f"an error whose content-type is {kind!r}"
    try:
        found = json.loads(body)
    except ValueError:
        return f"an error that is no JSON: {body[:300]!r}"
    error = found.get("error") if isinstance(found, dict) and set(found) == {"error"} else None
    if not isinstance(error, dict) or set(error) != _FIELDS:
        return f"an error of another shape: {body[:300]!r}"
    if not isinstance(error["message"], str) or not error["message"] or not isinstance(error["type"], str):
        return f"an error without words: {body[:300]!r}"
    if not all(error[name] is None or isinstance(error[name], str) for name in ("param", "code")):
        return f"param or code is no text: {body[:300]!r}"
    if told := leaks(json.dumps(error, ensure_ascii=False), sent):
        return f"{told} in {body[:300]!r}"
    return None
