"""POST /tokenize, /detokenize and /v1/render: what the model sees."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ...run.asking import Asker
from .. import prompts
from ..answering import json_response
from ..bodies import read
from ..errors import APIError
from ..logprobs import shown
from ..schemas.base import MOST_IDS
from ..schemas.chat import Rendered, RenderedToken, RenderRequest
from ..schemas.texts import Detokenized, DetokenizeRequest, Tokenized, TokenizeRequest
from ..service import Service


async def tokenize(http: Request) -> Response:
    """Return the tokens of a text."""
    service: Service = http.app.state
    body = await read(http, TokenizeRequest)
    service.named(body.model)
    return json_response(await service.think(_tokenized, service.asker, body))


def _tokenized(asker: Asker, body: TokenizeRequest) -> Tokenized:
    ids = asker.tokenizer.encode(body.prompt, control=body.control)
    if body.add_special_tokens:
        ids = asker.tokenizer.around.wrap(ids).ids
    return Tokenized(
        count=len(ids),
        max_model_len=asker.facts.room.context,
        tokens=ids,
        token_strs=[shown(asker.tokenizer, id) for id in ids],
    )


async def detokenize(http: Request) -> Response:
    """Return the text of ids."""
    service: Service = http.app.state
    body = await read(http, DetokenizeRequest)
    service.named(body.model)
    return json_response(await service.think(_detokenized, service.asker, body))


def _detokenized(asker: Asker, body: DetokenizeRequest) -> Detokenized:
    check_ids(asker, body.tokens)
    return Detokenized(prompt=asker.tokenizer.decode(body.tokens, control=body.control))


async def render(http: Request) -> Response:
    """Return what the model would see of a chat or a completion request."""
    service: Service = http.app.state
    body = await read(http, RenderRequest)
    service.named(body.model)
    return json_response(await service.think(_rendered, service.asker, body))


def _rendered(asker: Asker, body: RenderRequest) -> Rendered:
    if body.messages is not None:
        tools = [tool.plain() for tool in body.tools] if body.tools else None
        request = prompts.conversation(asker, [message.plain() for message in body.messages], tools)
    else:
        request = prompts.continuation(asker, body.prompt or "")
    if len(request.ids) > MOST_IDS:
        raise APIError(
            400, f"the prompt has {len(request.ids)} tokens; {MOST_IDS} are the most that are shown"
        )
    control = frozenset(asker.tokenizer.control.values())
    tokens = [
        RenderedToken(id=id, text=shown(asker.tokenizer, id), control=id in control) for id in request.ids
    ]
    return Rendered(
        prompt=request.text or "",
        token_ids=request.ids,
        tokens=tokens,
        template=prompts.written_by(asker, request),
    )


def check_ids(asker: Asker, ids: list[int]) -> None:
    """Raise APIError for an id that is not one of the model's."""
    if wrong := [id for id in ids if id >= asker.facts.size]:
        raise APIError(400, f"token {wrong[0]} is not one of the model's 0 to {asker.facts.size - 1}")
