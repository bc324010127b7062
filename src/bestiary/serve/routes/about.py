"""GET /v1/models, /v1/card, /health, /metrics: what there is and how it is."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import version

from starlette.requests import Request
from starlette.responses import Response

from ... import roster
from ..answering import HEADERS, json_response
from ..metrics import CONTENT_TYPE
from ..schemas.texts import Card, Health, Model, Models
from ..service import Named, Service


async def models(http: Request) -> Response:
    """Return the model and the adapters on it."""
    service: Service = http.app.state
    named = [Named(service.names[0]), *(Named(name, name) for name in service.link.adapters)]
    return json_response(Models(data=[_model(service, one) for one in named]))


async def model(http: Request) -> Response:
    """Return one model. Raises APIError for a name that is not here."""
    service: Service = http.app.state
    return json_response(_model(service, service.named(http.path_params["id"])))


def _model(service: Service, named: Named) -> Model:
    facts = service.asker.facts
    return Model(
        id=named.id,
        created=service.began,
        owned_by="bestiary",
        context=facts.room.context,
        abilities=list(facts.abilities),
        adapters=list(service.link.adapters) if named.adapter is None else [],
        parent=None if named.adapter is None else service.names[0],
        sampling=service.defaults,
    )


async def card(http: Request) -> Response:
    """Return what the roster says of the model."""
    service: Service = http.app.state
    name = service.settings.opening.model
    entry = None if name.startswith(("/", ".", "~")) else roster.find(name)
    plain = None if entry is None else json.loads(json.dumps(asdict(entry), default=str))
    return json_response(Card(id=service.names[0], entry=plain))


async def health(http: Request) -> Response:
    """Return whether requests can be answered now: 200, or 503 and why not."""
    service: Service = http.app.state
    state = service.state
    share = round(service.share, 3) if state == "loading" else None
    said = Health(status=state, version=version("bestiary"), progress=share)  # type: ignore[arg-type]
    return json_response(said, 200 if state == "ok" else 503)


async def metrics(http: Request) -> Response:
    """Return the counts, as Prometheus reads them."""
    service: Service = http.app.state
    text = service.metrics.text(service.link.replicas())
    return Response(text, headers={**HEADERS, "content-type": CONTENT_TYPE})
