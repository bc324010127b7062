"""POST /v1/embeddings."""

from __future__ import annotations

import base64
import struct

from starlette.requests import Request
from starlette.responses import Response

from ..answering import json_response
from ..bodies import read
from ..errors import APIError
from ..schemas.embeddings import Embedding, EmbeddingRequest, Embeddings, EmbeddingUsage
from ..service import Service
from ..sse import watched


async def embed(http: Request) -> Response:
    """Return the vectors of texts."""
    service: Service = http.app.state
    body = await read(http, EmbeddingRequest)
    model = service.named(body.model)
    service.check("embed", "embed texts")
    place = service.gate.enter(1)
    try:
        ids = await service.think(service.embeddable, body.texts)
        stream = service.read(ids, model=model, salt=http.scope["state"].get("salt", ""))
        try:
            async with watched(http.receive, stream.close):
                (vectors,) = await stream.vectors() or ([],)
        finally:
            stream.close()
    finally:
        place.leave()
    count = sum(map(len, ids))
    http.scope["state"]["record"].prompt_tokens = count
    return json_response(
        Embeddings(
            data=[_embedding(i, row, body) for i, row in enumerate(vectors)],
            model=model.id,
            usage=EmbeddingUsage(prompt_tokens=count, total_tokens=count),
        )
    )


def _embedding(index: int, row: bytes, body: EmbeddingRequest) -> Embedding:
    size = len(row) // 4
    if body.dimensions is not None and body.dimensions != size:
        raise APIError(
            400, f"dimensions={body.dimensions}, and this model's vectors have {size}", param="dimensions"
        )
    if body.encoding_format == "base64":
        return Embedding(index=index, embedding=base64.b64encode(row).decode())
    return Embedding(index=index, embedding=list(struct.unpack(f"<{size}f", row)))
