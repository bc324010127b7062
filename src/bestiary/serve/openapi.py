"""/openapi.json: the API as OpenAPI 3.1 describes it, made of the very classes that read and write it."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response

from .answering import json_response
from .schemas.base import ErrorAnswer
from .schemas.chat import ChatChunk, ChatCompletion, ChatRequest, Rendered, RenderRequest
from .schemas.completions import Completion, CompletionRequest
from .schemas.embeddings import EmbeddingRequest, Embeddings
from .schemas.responses import Response as ResponseAnswer
from .schemas.responses import ResponseRequest
from .schemas.texts import (
    AdapterDone,
    Card,
    Detokenized,
    DetokenizeRequest,
    Health,
    LoadAdapterRequest,
    Model,
    Models,
    Tokenized,
    TokenizeRequest,
    UnloadAdapterRequest,
)

_REFS = "#/components/schemas/{model}"
# path -> method, request, answer, what it does.
_Operation = tuple[str, type[BaseModel] | None, type[BaseModel] | None, str]
OPERATIONS: dict[str, _Operation] = {
    "/health": ("get", None, Health, "Whether requests can be answered now."),
    "/metrics": ("get", None, None, "Counts, as Prometheus reads them."),
    "/openapi.json": ("get", None, None, "This document."),
    "/v1/models": ("get", None, Models, "The model and the adapters on it."),
    "/v1/models/{id}": ("get", None, Model, "One model."),
    "/v1/card": ("get", None, Card, "What the roster says of the model."),
    "/v1/chat/completions": ("post", ChatRequest, ChatCompletion, "Answer a conversation."),
    "/v1/completions": ("post", CompletionRequest, Completion, "Continue prompts."),
    "/v1/embeddings": ("post", EmbeddingRequest, Embeddings, "Vectors of texts."),
    "/v1/responses": ("post", ResponseRequest, ResponseAnswer, "Answer a text or a conversation."),
    "/v1/render": ("post", RenderRequest, Rendered, "What the model would see."),
    "/v1/load_lora_adapter": ("post", LoadAdapterRequest, AdapterDone, "Load an adapter."),
    "/v1/unload_lora_adapter": ("post", UnloadAdapterRequest, AdapterDone, "Unload an adapter."),
    "/tokenize": ("post", TokenizeRequest, Tokenized, "The tokens of a text."),
    "/detokenize": ("post", DetokenizeRequest, Detokenized, "The text of tokens."),
}
_STREAMS = {"/v1/chat/completions": ChatChunk, "/v1/completions": Completion, "/v1/responses": None}
_FAULTS = {
    400: "A field is out of its bounds, or the prompt does not fit the context.",
    401: "An API key is needed.",
    403: "The Host or Origin header, or the server's settings, do not allow it.",
    404: "No such model.",
    405: "Not with this method.",
    408: "The body took longer than 30 seconds to arrive.",
    413: "The body has more than 4 MiB.",
    415: "The body is not application/json.",
    429: "Too many answers wait; Retry-After says when to come again.",
    431: "The head of the request has more than 16 KiB.",
    500: "A defect of the server.",
    503: "The model is loading or restarting, or the server stops; Retry-After says when to come again.",
}


async def document(http: Request) -> Response:
    """Return the document."""
    return json_response(described())


@cache
def described() -> dict[str, Any]:
    """Return the API as OpenAPI 3.1."""
    asked = [(kind, "validation") for _, kind, _, _ in OPERATIONS.values() if kind is not None]
    said = [(kind, "serialization") for _, _, kind, _ in OPERATIONS.values() if kind is not None]
    chunks = [(kind, "serialization") for kind in _STREAMS.values() if kind is not None]
    every = list(dict.fromkeys([*asked, *said, *chunks, (ErrorAnswer, "serialization")]))
    refs, schemas = models_json_schema(every, ref_template=_REFS, title="Bestiary")  # type: ignore[arg-type]
    return {
        "openapi": "3.1.0",
        "info": {"title": "Bestiary", "version": version("bestiary"), "license": {"name": "Apache-2.0"}},
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "paths": {path: {one[0]: _operation(path, one, refs)} for path, one in OPERATIONS.items()},
    }


def _operation(path: str, operation: _Operation, refs: Any) -> dict[str, Any]:
    method, asked, said, about = operation
    words = path.strip("/").replace("{", "").replace("}", "").replace(".", "/").split("/")
    made: dict[str, Any] = {
        "operationId": "_".join((method, *words)),
        "summary": about,
        "security": [] if path == "/health" else [{}, {"key": []}],
        "responses": {"200": _answered(path, said, refs)},
    }
    faults = (
        _FAULTS if method == "post" else {code: _FAULTS[code] for code in (401, 403, 404, 405, 431, 500, 503)}
    )
    error = {"application/json": {"schema": refs[ErrorAnswer, "serialization"]}}
    for status, words_of in faults.items():
        made["responses"][str(status)] = {"description": words_of, "content": error}
    if path == "/health":
        made["responses"]["503"] = {"description": "Not now.", **_answered(path, Health, refs)}
    if asked is not None:
        schema = refs[asked, "validation"]
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    if "{id}" in path:
        schema = {"type": "string", "minLength": 1, "maxLength": 512}
        made["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": schema}]
    return made


def _answered(path: str, said: type[BaseModel] | None, refs: Any) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if said is not None:
        content["application/json"] = {"schema": refs[said, "serialization"]}
    elif path == "/metrics":
        content["text/plain"] = {"schema": {"type": "string"}}
    else:
        content["application/json"] = {"schema": {"type": "object"}}
    if path in _STREAMS:
        chunk = _STREAMS[path]
        about = "Events, where stream is true; each one's data is JSON, the last one's [DONE]."
        # No type: some readers take the schema for that of each event, others for that of all their text.
        schema = {"description": about}
        if chunk is not None:
            schema["contentSchema"] = refs[chunk, "serialization"]
        content["text/event-stream"] = {"schema": schema}
    return {"description": "Done.", "content": content}
