"""Stop strings in a stream: what may be shown now, and when the answer is over."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Cuts a stream of text at the first stop string to be completed, wherever the pieces break.

    Where one character completes several, the longest counts, so that no part of it is shown. Text is held
    back only while it may still turn out to be the beginning of a stop string.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [(stop, _failures(stop)) for stop in stops]
        self._matched = [0] * len(stops)  # how much of each stop string the text so far ends with
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """Take the next piece; return what may be shown, and whether a stop string was completed.

        After that the rest is dropped and nothing must be pushed any more.
        """
        if not self._stops:
            return text, False
        held = self._held + text
        for end, character in enumerate(text, len(self._held) + 1):
            length = self._advance(character)
            if length:
                return held[: end - length], True
        shown = len(held) - max(self._matched)
        self._held = held[shown:]
        return held[:shown], False

    def flush(self) -> str:
        """Return what is still held back, at the end of the stream."""
        held, self._held = self._held, ""
        return held

    def _advance(self, character: str) -> int:
        """Move each match by one character (Knuth, Morris, Pratt); return the longest completed, or 0."""
        completed = 0
        for i, (stop, failures) in enumerate(self._stops):
            matched = self._matched[i]
            while matched and stop[matched] != character:
                matched = failures[matched - 1]
            matched += stop[matched] == character
            self._matched[i] = matched
            if matched == len(stop):
                completed = max(completed, matched)
        return completed


def _failures(stop: str) -> list[int]:
    """For each prefix of stop, the length of its longest proper prefix that is also its suffix."""
    failures, matched = [0] * len(stop), 0
    for i in range(1, len(stop)):
        while matched and stop[matched] != stop[i]:
            matched = failures[matched - 1]
        matched += stop[matched] == stop[i]
        failures[i] = matched
    return failures
