"""One answer's text and calls, whatever the form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .bodies import Call, Event, Told
from .readers import Reader
from .styles import Style


class Reading:
    """Reads one answer as it comes.

    tools: what the model was told of, as OpenAI's API describes functions. prompt: its text. White space
    between text and a call belongs to the form, and is left out.
    """

    def __init__(self, style: Style, tools: Sequence[Mapping[str, Any]], *, prompt: str = "") -> None:
        self._reader: Reader = style.reader(_told(tools), prompt)
        self._space = ""
        self._behind = False  # the last event was a call

    def push(self, text: str) -> list[Event]:
        """Return what this text settles, in order; neighbouring texts are one."""
        return self._spaced(self._reader.push(text))

    def flush(self) -> list[Event]:
        """Return what was held back; the answer has ended."""
        events = self._spaced(self._reader.flush())
        return [*events, self._space] if self._space and not self._behind else events

    def _spaced(self, events: Iterable[Event]) -> list[Event]:
        found: list[Event] = []
        for event in events:
            if isinstance(event, Call):
                self._space, self._behind = "", True
                found.append(event)
                continue
            text = self._space + event
            kept = text.rstrip()
            self._space = text[len(kept) :]
            if not kept:
                continue
            if self._behind:
                kept, self._behind = kept.lstrip(), False
            if found and isinstance(found[-1], str):
                found[-1] += kept
            else:
                found.append(kept)
        return found


def _told(tools: Sequence[Mapping[str, Any]]) -> Told:
    found: dict[str, tuple[str, ...]] = {}
    for tool in tools:
        function = tool.get("function") or tool
        parameters = function.get("parameters")
        properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
        found[str(function.get("name"))] = tuple(properties) if isinstance(properties, Mapping) else ()
    return found
