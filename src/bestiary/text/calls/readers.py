"""The ways in which calls stand in an answer. A reader takes text as it comes and gives text and calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from . import bodies
from .bodies import Event, Told
from .marks import Body, Marks

Parse = Callable[[str, Told], list[Event] | None]
"""Reads a body; None where it is not a whole, well-formed call."""


class Reader(Protocol):
    """Takes the text of one answer."""

    def push(self, text: str) -> list[Event]:
        """Return what this text settles."""

    def flush(self) -> list[Event]:
        """Return what was held back. Ends the answer."""


class Enclosed:
    """Calls between marks: `<tool_call>{...}</tool_call>`. The end of the answer closes one too.

    silent: marks that stand around text and are not part of it.
    """

    def __init__(
        self, told: Told, open_: str, close: str | None, parse: Parse, *, silent: tuple[str, ...] = ()
    ) -> None:
        self._told, self._open, self._close, self._parse = told, open_, close, parse
        self._outside = Marks(open_, *silent)
        self._body: Body | None = None

    def push(self, text: str) -> list[Event]:
        events: list[Event] = []
        while text:
            if self._body is None:
                before, mark, text = self._outside.push(text)
                events.append(before)
                if mark == self._open:
                    self._body = Body(*(() if self._close is None else (self._close,)))
            else:
                text = self._body.push(text)
                if self._body.closed is not None or self._body.overlong:
                    events += self._ended(self._body)
        return events

    def flush(self) -> list[Event]:
        if self._body is None:
            return [self._outside.flush()]
        self._body.flush()
        return self._ended(self._body)

    def _ended(self, body: Body) -> list[Event]:
        self._body = None
        found = None if body.overlong else self._parse(body.text(), self._told)
        return [self._open + body.text() + (body.closed or "")] if found is None else found


class Reasoned:
    """ReAct: a thought, then an action with its input, or the final answer (Qwen's openai_api.py).

    begun: the prompt ends with "Thought:". A thought is told before a call, and left out before a final
    answer, as the authors' server does.
    """

    _THOUGHT, _ACTION, _FINAL = "Thought:", "\nAction:", "\nFinal Answer:"

    def __init__(self, told: Told, *, begun: bool) -> None:
        self._begin = self._THOUGHT if begun else ""
        self._thought: Body | None = None
        self._rest = Enclosed(told, self._ACTION, None, bodies.reacted)
        self._decided = False
        self._trims = False

    def push(self, text: str) -> list[Event]:
        if self._decided:
            return self._rest.push(self._trimmed(text))
        if self._thought is None:
            text = self._begin + text
            start = text.lstrip()
            if len(start) < len(self._THOUGHT) and self._THOUGHT.startswith(start):
                self._begin = text
                return []
            if not start.startswith(self._THOUGHT):
                self._decided = True
                return self._rest.push(text)
            self._thought = Body(self._ACTION, self._FINAL)
        rest = self._thought.push(text)
        if self._thought.closed is None and not self._thought.overlong:
            return []
        return self._left(self._thought, rest)

    def flush(self) -> list[Event]:
        if not self._decided and self._thought is None:
            return [self._begin]
        if not self._decided and self._thought is not None:
            self._thought.flush()
            return [self._thought.text()]
        return self._rest.flush()

    def _left(self, thought: Body, rest: str) -> list[Event]:
        """Go on behind a thought."""
        self._decided = True
        if thought.closed == self._FINAL:
            self._trims = True
            return self._rest.push(self._trimmed(rest))
        if thought.closed == self._ACTION:
            said = thought.text().lstrip().removeprefix(self._THOUGHT).strip()
            return [said, *self._rest.push(self._ACTION + rest)]
        return [thought.text(), *self._rest.push(rest)]

    def _trimmed(self, text: str) -> str:
        """Take the space away that stands behind "Final Answer:"."""
        if self._trims and text:
            text = text.lstrip()
            self._trims = not text
        return text


class Headed:
    """ChatGLM3: turns whose first line names a function, or is empty before text (process_response).

    Within an answer a turn ends where a control token begins the next.
    """

    _TURN = "<|assistant|>"

    def __init__(self, told: Told) -> None:
        self._told = told
        self._turn = Body(self._TURN)
        self._head: str | None = ""  # None: what comes is text
        self._name: str | None = None
        self._text = Marks(self._TURN)
        self._trims = False

    def push(self, text: str) -> list[Event]:
        events: list[Event] = []
        while text:
            if self._head is not None:
                text = self._headed(self._head + text)
            elif self._name is not None:
                text = self._turn.push(text)
                if self._turn.overlong or self._turn.closed is not None:
                    events += self._called()
            else:
                said, mark, text = self._text.push(text)
                events.append(self._trimmed(said))
                if mark is not None:
                    self._head = ""
        return events

    def flush(self) -> list[Event]:
        if self._head is not None:
            return [self._head]
        if self._name is None:
            return [self._trimmed(self._text.flush())]
        self._turn.flush()
        return self._called()

    def _headed(self, text: str) -> str:
        """Read a turn's first line; return what is behind it, "" while it is open."""
        line, end, rest = text.partition("\n")
        name = line.strip()
        if end and (not name or name in self._told):
            self._head, self._name, self._trims = None, name or None, True
            self._turn = Body(self._TURN)
            return rest
        if not end and any(known.startswith(name) for known in ("", *self._told)):
            self._head = text
            return ""
        self._head, self._name, self._trims = None, None, False
        return text

    def _called(self) -> list[Event]:
        name, body, self._name = self._name or "", self._turn, None
        self._head = "" if body.closed is not None else None
        found = None if body.overlong else bodies.fenced(name, body.text(), self._told)
        return [f"{name}\n{body.text()}"] if found is None else found

    def _trimmed(self, text: str) -> str:
        if self._trims and text:
            text = text.lstrip()
            self._trims = not text
        return text


class Whole:
    """An answer that is all JSON, or all text. front: a mark that may stand before the JSON."""

    def __init__(self, told: Told, parse: Parse, *, front: str = "") -> None:
        self._told, self._parse, self._front = told, parse, front
        self._body: Body | None = Body()
        self._said = False

    def push(self, text: str) -> list[Event]:
        if self._body is None:
            return [text]
        self._body.push(text)
        if not self._said and text.strip():
            start = self._body.text().lstrip()
            if self._front.startswith(start):
                return []
            start = start.removeprefix(self._front).lstrip()
            self._said = bool(start)
            if start and start[0] not in "{[":
                return [self._left()]
        return [self._left()] if self._body.overlong else []

    def flush(self) -> list[Event]:
        if self._body is None:
            return []
        body = self._body.text().lstrip().removeprefix(self._front)
        found = self._parse(body, self._told)
        return [self._left()] if found is None else found

    def _left(self) -> str:
        text = "" if self._body is None else self._body.text()
        self._body = None
        return text
