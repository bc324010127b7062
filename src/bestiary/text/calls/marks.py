"""Finding marks in a text that comes in pieces."""

from __future__ import annotations

import re


class Marks:
    """Finds the first of some marks. What may be the beginning of one is held back until it is known."""

    def __init__(self, *marks: str) -> None:
        self._marks = sorted(marks, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, self._marks)))
        self._held = ""

    def push(self, text: str) -> tuple[str, str | None, str]:
        """Return the text that holds no mark, the mark that follows if one does, and what is behind it."""
        text = self._held + text
        if match := self._pattern.search(text):
            self._held = ""
            return text[: match.start()], match[0], text[match.end() :]
        kept = len(text) - self._open(text)
        self._held = text[kept:]
        return text[:kept], None, ""

    def flush(self) -> str:
        """Return what was held back: the text has ended, and it is no mark."""
        held, self._held = self._held, ""
        return held

    def _open(self, text: str) -> int:
        """Return how many characters at the end of a text begin a mark."""
        for length in range(min(len(self._marks[0]) - 1, len(text)), 0, -1):
            if any(mark.startswith(text[-length:]) for mark in self._marks):
                return length
        return 0


class Body:
    """What stands between the mark that opens a call and the one that closes it, or the answer's end.

    Its length is bounded: what is longer is no call, and a model may write without end.
    """

    LIMIT = 1 << 18  # characters

    def __init__(self, *close: str) -> None:
        self._marks = Marks(*close) if close else None
        self._parts: list[str] = []
        self._length = 0
        self.closed: str | None = None

    def push(self, text: str) -> str:
        """Take text up to the closing mark; return what is behind it."""
        rest = ""
        if self._marks is not None:
            text, self.closed, rest = self._marks.push(text)
        self._parts.append(text)
        self._length += len(text)
        return rest

    def flush(self) -> None:
        """Take what was held back: the answer has ended."""
        if self._marks is not None:
            self._parts.append(self._marks.flush())

    @property
    def overlong(self) -> bool:
        """Whether it is too long for a call."""
        return self._length > self.LIMIT

    def text(self) -> str:
        """Return all of it, without the closing mark."""
        return "".join(self._parts)
