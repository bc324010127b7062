"""POST /v1/load_lora_adapter and /v1/unload_lora_adapter, as vLLM names them."""

from __future__ import annotations

import os
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from ..answering import json_response
from ..bodies import read
from ..errors import APIError
from ..schemas.texts import AdapterDone, LoadAdapterRequest, UnloadAdapterRequest
from ..service import Service

MOST = 64


async def load(http: Request) -> Response:
    """Load an adapter from a folder under the one that the server was given."""
    service: Service = http.app.state
    body = await read(http, LoadAdapterRequest)
    root = _root(service)
    if body.lora_name in service.link.adapters or body.lora_name in service.names:
        raise APIError(400, f"the name {body.lora_name!r} is taken", param="lora_name")
    if len(service.link.adapters) >= MOST:
        raise APIError(400, f"{MOST} adapters are loaded; unload one first")
    folder = _under(root, body.lora_path)
    await service.link.attach(body.lora_name, str(folder))
    return json_response(AdapterDone(message=f"loaded {body.lora_name}"))


async def unload(http: Request) -> Response:
    """Unload an adapter."""
    service: Service = http.app.state
    body = await read(http, UnloadAdapterRequest)
    _root(service)
    if body.lora_name not in service.link.adapters:
        raise APIError(404, "no adapter of this name is loaded", param="lora_name", code="model_not_found")
    await service.link.detach(body.lora_name)
    return json_response(AdapterDone(message=f"unloaded {body.lora_name}"))


def _root(service: Service) -> Path:
    if service.settings.adapters_under is None:
        raise APIError(
            403,
            "adapters are loaded at the start only; --allow-adapters FOLDER lets them be later",
            code="not_allowed",
        )
    return service.settings.adapters_under


def _under(root: Path, asked: str) -> Path:
    """Return a folder under `root`. One outside and one that is not there are refused in the same words."""
    refused = APIError(
        400, "there is no such folder under the server's folder of adapters", param="lora_path"
    )
    within = Path(os.path.realpath(root))
    try:
        real = Path(os.path.realpath(root / asked))
        found = real != within and real.is_relative_to(within) and real.is_dir()
    except (OSError, ValueError):  # a name that is too long, or holds a NUL
        found = False
    if not found:
        raise refused
    return real
