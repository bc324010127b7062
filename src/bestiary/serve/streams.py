"""What comes of one job, as its reader takes it: all that has come since it last asked, in one piece.

A reader who is slower than the model costs the tokens that wait for it and no more; a request has as many as
the context at most.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Mapping
from typing import Any

from .jobs import Piece, piece_of


class StreamError(Exception):
    """A job ended with an error. kind: "request" where the request is at fault, "lost" where the worker is
    gone, "defect", or the name of a BestiaryError.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


class Stream:
    """The pieces of the jobs of one request, or its vectors.

    answers: number of a job -> how many answers it has. let_go: called with the number of each job that is
    not over when the reader wants no more.
    """

    def __init__(self, answers: Mapping[int, int], let_go: Callable[[int], None]) -> None:
        self._left = dict(answers)
        self._refusable = set(answers)  # jobs that the engine has not taken yet
        self._let_go = let_go
        self._pieces: list[Piece] = []
        self._vectors: dict[int, list[bytes]] = {}
        self._error: StreamError | None = None
        self._news = asyncio.Event()

    # The link's side.

    def accept(self, number: int) -> None:
        """The engine has taken a job."""
        self._refusable.discard(number)
        self._news.set()

    def add(self, number: int, said: Mapping[str, Any]) -> bool:
        """Take what a step gave a job; return whether that was all of it."""
        if "vectors" in said:
            self._vectors[number] = [base64.b64decode(row) for row in said["vectors"]]
            self._left[number] = 0
        else:
            piece = piece_of(said)
            self._pieces.append(piece)
            if piece.finish_reason is not None:
                self._left[number] -= 1
        self._news.set()
        if self._left[number] == 0:
            del self._left[number]
            return True
        return False

    def left(self, number: int) -> int:
        """Return how many answers of a job are not over."""
        return self._left.get(number, 0)

    def fail(self, kind: str, message: str) -> None:
        """End with an error, and all jobs with it."""
        if self._error is None:
            self._error = StreamError(kind, message)
        self.close()

    # The reader's side.

    async def accepted(self) -> None:
        """Wait until the engine has taken all jobs. Raises StreamError when it refuses one."""
        while self._refusable and self._left:
            await self._wait()
        if self._error is not None:
            raise self._error

    async def take(self) -> list[Piece]:
        """Return all pieces that have come, at least one; none when all were taken. Raises StreamError."""
        while not self._pieces and self._left:
            await self._wait()
        pieces, self._pieces = self._pieces, []
        if not pieces and self._error is not None:
            raise self._error
        return pieces

    async def vectors(self) -> list[list[bytes]]:
        """Return the vectors of each job, float32. Raises StreamError."""
        while self._left:
            await self._wait()
        if self._error is not None:
            raise self._error
        return [self._vectors[number] for number in sorted(self._vectors)]

    def close(self) -> None:
        """Want no more. Jobs that are not over are ended, and what they hold is freed."""
        left, self._left = self._left, {}
        for number in left:
            self._let_go(number)
        self._news.set()

    async def _wait(self) -> None:
        self._news.clear()
        await self._news.wait()
