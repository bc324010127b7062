"""An answer's text, less the calls of functions that a model writes in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..run.asking import Asker
from .jobs import Piece
from .schemas.chat import SaidCall


class Reader:
    """Reads one answer as it comes. tools: what the model was told of; None for none. one: of several calls,
    keep the first.
    """

    def __init__(self, asker: Asker, tools: Sequence[Mapping[str, Any]] | None, *, one: bool) -> None:
        self._calls = 0

    def push(self, piece: Piece) -> tuple[str, list[SaidCall]]:
        """Return the text that a piece settles, and the calls or parts of calls."""
        return piece.text, []

    def reason(self, reason: str) -> str:
        """Return why an answer ended, as OpenAI names it."""
        return "tool_calls" if self._calls and reason == "stop" else reason
