"""POST /v1/responses, its text part."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

from .. import prompts
from ..answering import json_response
from ..bodies import read
from ..run import Run
from ..schemas.responses import (
    Incomplete,
    InputDetails,
    OutputDetails,
    OutputMessage,
    OutputText,
    Response,
    ResponseRequest,
    ResponseUsage,
)
from ..service import Service
from ..sse import EventStream, event


async def answer(http: Request) -> ASGIApp:
    """Answer a text or a conversation, at once or as it comes."""
    service: Service = http.app.state
    body = await read(http, ResponseRequest)
    run = await _begun(service, http, body)
    told = _Told(run, body)
    if not body.stream:
        return json_response(await run.whole(told.whole))
    await run.accepted()
    return EventStream(told.events(), run.close, run.fail)


async def _begun(service: Service, http: Request, body: ResponseRequest) -> Run:
    model = service.named(body.model)
    service.check("generate", "answer a conversation")
    place = service.gate.enter(1)
    try:
        request = await service.think(prompts.conversation, service.asker, body.conversation(), None)
        params = service.params(body.chosen(), max_tokens=body.max_output_tokens)
        return Run(service, http, [(request, params)], model=model, prefix="resp_", place=place)
    except BaseException:
        place.leave()
        raise


class _Told:
    """One answer, in the shapes of the Responses API."""

    def __init__(self, run: Run, body: ResponseRequest) -> None:
        self._run, self._body = run, body
        self._item = f"msg_{secrets.token_hex(16)}"
        self._number = -1
        self._text, self._reason = "", "length"

    async def whole(self) -> Response:
        """Return the answer."""
        async for pieces in self._run.pieces():
            for piece in pieces:
                self._text += piece.text
                self._reason = piece.finish_reason or self._reason
        return self._ended()

    async def events(self) -> AsyncIterator[str]:
        """Yield the events of a stream, each with its name."""
        begun = self._response("in_progress", [])
        yield self._event("response.created", response=begun)
        yield self._event("response.in_progress", response=begun)
        place: dict[str, Any] = {"output_index": 0}
        yield self._event("response.output_item.added", **place, item=self._message("in_progress", []))
        at = {**place, "item_id": self._item, "content_index": 0}
        yield self._event("response.content_part.added", **at, part=OutputText(text=""))
        async for pieces in self._run.pieces():
            for piece in pieces:
                self._text += piece.text
                self._reason = piece.finish_reason or self._reason
                if piece.text:
                    yield self._event("response.output_text.delta", **at, delta=piece.text, logprobs=[])
        part = OutputText(text=self._text)
        yield self._event("response.output_text.done", **at, text=self._text, logprobs=[])
        yield self._event("response.content_part.done", **at, part=part)
        ended = self._ended()
        yield self._event("response.output_item.done", **place, item=ended.output[0])
        yield self._event(f"response.{ended.status}", response=ended)

    def _event(self, name: str, **said: Any) -> str:
        self._number += 1
        plain = {
            key: value.model_dump(mode="json") if hasattr(value, "model_dump") else value
            for key, value in said.items()
        }
        return event({"type": name, "sequence_number": self._number, **plain}, name)

    def _ended(self) -> Response:
        status = "incomplete" if self._reason == "length" else "completed"
        made = self._response(status, [self._message(status, [OutputText(text=self._text)])])
        if status == "incomplete":
            made.incomplete_details = Incomplete(reason="max_output_tokens")
        usage = self._run.usage()
        made.usage = ResponseUsage(
            input_tokens=usage.prompt_tokens,
            input_tokens_details=InputDetails(cached_tokens=usage.prompt_tokens_details.cached_tokens),
            output_tokens=usage.completion_tokens,
            output_tokens_details=OutputDetails(),
            total_tokens=usage.total_tokens,
        )
        return made

    def _message(self, status: Any, content: list[OutputText]) -> OutputMessage:
        return OutputMessage(id=self._item, status=status, content=content)

    def _response(self, status: Any, output: list[OutputMessage]) -> Response:
        params, asked = self._run.asked[0][1], self._body
        form = None if asked.text is None or asked.text.format is None else asked.text.format
        described = (
            {"type": "text"}
            if form is None
            else form.model_dump(mode="json", by_alias=True, exclude_none=True)
        )
        return Response(
            id=self._run.id,
            created_at=self._run.created,
            status=status,
            instructions=asked.instructions,
            max_output_tokens=asked.max_output_tokens,
            metadata=asked.metadata or {},
            model=self._run.model.id,
            output=output,
            temperature=params.temperature,
            top_p=params.top_p,
            text={"format": described},
            user=asked.user,
        )
