"""One replica of the engine: a worker process, and what comes of its jobs as a stream of plain messages."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

from ..jobs import said_of
from ..link import Link, UnavailableError
from ..settings import Opening
from ..streams import Stream, StreamError
from ..wire import Message

# Most seconds until an engine that fell idle has said so, and between two looks.
_SETTLE, _LOOK = 0.1, 0.002


class Replica:
    """The model behind a link, as Ray Serve makes one of it: once for each replica, on whichever machine.

    Its methods are called through a deployment handle.
    """

    # Ray Serve awaits a constructor; a model that cannot be opened fails the deployment with its words.
    async def __init__(self, opening: Opening) -> None:  # type: ignore[misc]
        from ray import serve

        self._name: str = serve.get_replica_context().replica_id.unique_id
        self._said: Message = {}
        self._numbers = count(1)
        self._link = Link(opening, ready=self._said.update)
        await self._link.open()

    async def facts(self) -> Message:
        """Return what the worker said when it was ready."""
        return self._said

    async def answer(self, job: Message, answers: int, avoid: list[str]) -> AsyncIterator[Message]:
        """Compute a job; yield what comes of it, and the engine's counts.

        avoid: replicas that could not take it, for the router. A message has "unavailable" where this one
        cannot either, "accepted" when the engine has taken the job, "said" with what a step gave, or "error".
        """
        number = next(self._numbers)
        stream = Stream({number: answers}, self._link.let_go)
        try:
            self._link.put(number, job, stream)
            await stream.accepted()
            yield self._message(accepted=True)
            if "texts" in job:
                (vectors,) = await stream.vectors()
                yield self._message(said=[{"vectors": [base64.b64encode(one).decode() for one in vectors]}])
            while pieces := await stream.take():
                yield self._message(said=[said_of(piece) for piece in pieces])
            await self._settled()
            yield self._message()
        except UnavailableError as error:
            yield self._message(unavailable=error.state)
        except StreamError as error:
            yield self._message(error=error.kind, message=error.message)
        finally:
            stream.close()

    async def _settled(self) -> None:
        """Wait until an engine that has fallen idle has said so: its counts go with the last message."""
        end = time.monotonic() + _SETTLE
        while self._link.load == 0 and self._link.stats.get("running") and time.monotonic() < end:
            await asyncio.sleep(_LOOK)

    def _message(self, **said: Any) -> Message:
        counts = {"stats": self._link.stats, "restarts": self._link.restarts}
        return {"replica": self._name, "ready": self._link.state == "ready", **counts, **said}

    async def check_health(self) -> None:
        """Raise where this replica will compute nothing more; Ray Serve then starts another."""
        if self._link.state == "closed":
            raise UnavailableError(self._link.state)

    async def __del__(self) -> None:
        # What Ray Serve calls when it takes a replica away, and awaits.
        if hasattr(self, "_link"):
            await self._link.close()
