"""An answer's text and calls in OpenAI's shapes."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from ..run.asking import Asker, Request
from ..text.calls import FORCED, Call, Event, Reading
from .jobs import Piece
from .schemas.chat import SaidCall, SaidFunction


class Reader:
    """Reads one answer as it comes.

    tools: what the model was told of; None for none. forced: the answer is held to be a call. one: of several
    calls, keep the first.
    """

    def __init__(
        self,
        asker: Asker,
        request: Request,
        tools: Sequence[Mapping[str, Any]] | None,
        *,
        forced: bool = False,
        one: bool = False,
    ) -> None:
        style = asker.template.calls if tools and asker.template else None
        style = FORCED if forced else style
        self._reading = Reading(style, tools or (), prompt=request.text or "") if style else None
        self._style, self._numbers, self._one = style, count(), one
        self._called = False

    def push(self, piece: Piece) -> tuple[str, list[SaidCall]]:
        """Return the text that a piece settles, and the calls that are whole."""
        if self._reading is None:
            return piece.text, []
        events = self._reading.push(piece.text)
        if piece.finish_reason is not None:
            events += self._reading.flush()
        text = "".join(event for event in events if isinstance(event, str))
        return text, [said for event in events if (said := self._said(event)) is not None]

    def _said(self, event: Event) -> SaidCall | None:
        if not isinstance(event, Call) or self._style is None or (self._one and self._called):
            return None
        self._called = True
        digits = secrets.token_hex(self._style.digits)[: self._style.digits]
        function = SaidFunction(name=event.name, arguments=event.arguments)
        id = f"{self._style.prefix}{digits}"
        return SaidCall(index=next(self._numbers), id=id, type="function", function=function)

    def reason(self, reason: str) -> str:
        """Return why an answer ended, as OpenAI names it."""
        return "tool_calls" if self._called and reason == "stop" else reason
