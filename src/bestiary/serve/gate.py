"""How many answers may be under way: those that are computed, and a queue of those that wait.

Beyond it a request is refused at once, before its prompt costs anything, and is told when to come again. An
unbounded queue makes everybody wait until clients give up, and then computes for nobody.
"""

from __future__ import annotations

from .errors import APIError


class Gate:
    """Counts the answers under way. most: how many there may be."""

    def __init__(self, streams: int, queue: int) -> None:
        self.most, self.inside, self._streams = streams + queue, 0, streams

    def enter(self, answers: int) -> Pass:
        """Let a request in. Raises APIError when there are too many; one alone is always let in."""
        if self.inside and self.inside + answers > self.most:
            waiting = max(0, self.inside - self._streams)
            raise APIError(
                429,
                f"{waiting} answers wait already, and {answers} more are too many; ask again in a moment",
                code="overloaded",
                after=1,
            )
        self.inside += answers
        return Pass(self, answers)


class Pass:
    """A request's place; given back once, when it is answered or given up."""

    def __init__(self, gate: Gate, answers: int) -> None:
        self._gate, self._answers = gate, answers

    def leave(self) -> None:
        """Give the place back."""
        self._gate.inside -= self._answers
        self._answers = 0
