"""Texts to make vectors of, a few between two steps of those who write, so that neither waits long."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from torch import Tensor

from ..models import Model
from ..run import encode
from ..run.encode import Pool
from ..text.around import Wrapped
from .sequence import Reading, Update


@dataclass(eq=False)
class _Open:
    number: int
    texts: list[Wrapped]
    vectors: list[Tensor] = field(default_factory=list)


class Readings:
    """The queue of texts. pool: makes a vector of states. tokens: padded tokens read at once.

    alone: read each text by itself, so that its vector does not depend on those beside it, in the last bits.
    """

    def __init__(self, model: Model, pool: Pool | None, *, tokens: int, alone: bool) -> None:
        self._model, self._pool, self._tokens, self._alone = model, pool, tokens, alone
        self._queue = deque[_Open]()

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, number: int, reading: Reading) -> None:
        """Take texts, as ids; each has at least one."""
        texts = [Wrapped(list(ids), [0] * len(ids)) for ids in reading.texts]
        self._queue.append(_Open(number, texts))

    def abort(self, number: int) -> bool:
        """Give texts up; tell whether they were there."""
        found = next((one for one in self._queue if one.number == number), None)
        if found is not None:
            self._queue.remove(found)
        return found is not None

    def step(self) -> list[Update]:
        """Read some of the first job's texts; return its vectors once all are there."""
        if not self._queue or self._pool is None:
            return []
        job = self._queue[0]
        count, longest = 0, 0
        for text in job.texts[len(job.vectors) :]:
            longest = max(longest, len(text.ids))
            if count and ((count + 1) * longest > self._tokens or self._alone):
                break
            count += 1
        some = job.texts[len(job.vectors) :][:count]
        job.vectors += encode.embed(self._model, some, self._pool, tokens=self._tokens)
        if len(job.vectors) < len(job.texts):
            return []
        self._queue.popleft()
        return [Update(job.number, vectors=job.vectors)]
