"""How anything is answered: JSON with the headers that every answer has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response

# No answer is a page, is kept by a proxy, or may be taken for another type than it says.
HEADERS = {"x-content-type-options": "nosniff", "cache-control": "no-store"}


def json_response(
    value: BaseModel | Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a value as the answer to a request."""
    return Response(
        encoded(value),
        status_code=status,
        headers={**HEADERS, **(headers or {})},
        media_type="application/json",
    )


def encoded(value: BaseModel | Mapping[str, Any]) -> str:
    """Return a value as JSON text on one line."""
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
