"""The application: routes, and around them who may ask, and around that what goes wrong.

`application(service)` is plain ASGI. Its lifespan starts the worker and ends it; requests are refused with
503 until the model is open.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from .boundary import Boundary
from .guard import ACCESS, Guard
from .openapi import document
from .routes import about, adapters, chat, completions, embeddings, page, responses, texts
from .service import Service


def routes() -> list[Route]:
    """Return every route but the page's."""
    return [
        Route("/health", about.health, methods=["GET"]),
        Route("/metrics", about.metrics, methods=["GET"]),
        Route("/openapi.json", document, methods=["GET"]),
        Route("/v1/models", about.models, methods=["GET"]),
        Route("/v1/models/{id:path}", about.model, methods=["GET"]),
        Route("/v1/card", about.card, methods=["GET"]),
        Route("/v1/chat/completions", chat.answer, methods=["POST"]),
        Route("/v1/completions", completions.answer, methods=["POST"]),
        Route("/v1/embeddings", embeddings.embed, methods=["POST"]),
        Route("/v1/responses", responses.answer, methods=["POST"]),
        Route("/v1/render", texts.render, methods=["POST"]),
        Route("/v1/load_lora_adapter", adapters.load, methods=["POST"]),
        Route("/v1/unload_lora_adapter", adapters.unload, methods=["POST"]),
        Route("/tokenize", texts.tokenize, methods=["POST"]),
        Route("/detokenize", texts.detokenize, methods=["POST"]),
    ]


def application(service: Service, *, waits: bool = False) -> ASGIApp:
    """Return the application of one model. waits: whether its start waits until the model is open.

    Raises KeyError for a route of which nobody said who may ask.
    """
    own, shown = routes(), page.routes()
    public = {route.path for route in own if ACCESS[route.path] == "public"}

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.begin()
        try:
            if waits:
                await service.opened()
            yield
        finally:
            await service.close()

    router = Router([*own, *shown], redirect_slashes=False, lifespan=lifespan)
    return Boundary(Guard(router, service.settings, {*public, *(route.path for route in shown)}), service)
