"""Which sequences compute how many tokens in the next step, and who gives way when the pages are full.

First come, first served. Those that are writing go on before prompts are read, so that an answer never stops
for somebody else's prompt; a prompt is read in pieces of what a step has left.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from .pages import PAGE, Pages, name
from .sequence import Sequence, pages_of


@dataclass(frozen=True)
class Work:
    """Tokens that one sequence computes in a step: its next `count`, and what is guessed to follow them."""

    sequence: Sequence
    count: int
    guesses: tuple[int, ...] = ()


class Scheduler:
    """The queue, and who is at work.

    batch: most sequences at work. chunk: tokens of a step; one that must be computed whole may take more.
    unit: prompts are cut at multiples of so many tokens, and shared in such pieces alone.
    """

    def __init__(self, pages: Pages, *, batch: int, chunk: int, unit: int) -> None:
        self.pages, self.waiting, self.running = pages, deque[Sequence](), list[Sequence]()
        self.preempted = 0
        self._batch, self._chunk, self._unit = batch, chunk, unit

    def plan(self) -> list[Work]:
        """Return the work of the next step, its pages taken."""
        works: list[Work] = []
        left = self._chunk
        for sequence in sorted(self.running, key=lambda one: one.pending > 1):
            if sequence not in self.running:  # it gave way to one before it
                continue
            count = self._count(sequence, left)
            if count and self._room(sequence, sequence.done + count):
                works.append(Work(sequence, count))
                left -= count
        works = [work for work in works if work.sequence in self.running]
        while left > 0 and (admitted := self._admitted()) is not None:
            count = self._count(admitted, left)
            if not self._room(admitted, admitted.done + count):
                break
            works.append(Work(admitted, count))
            left -= count
        return works

    def extend(self, sequence: Sequence, tokens: int) -> bool:
        """Take pages for guesses, where that costs nobody anything; tell whether they are there."""
        need = pages_of(sequence.done + tokens) - len(sequence.pages)
        if need > self.pages.available:
            return False
        sequence.pages += [self.pages.take() for _ in range(need)]
        return True

    def leave(self, sequence: Sequence) -> None:
        """Let go of a sequence's pages and of its place."""
        sequence.over = True
        self._release(sequence)
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def computed(self, sequence: Sequence, done: int) -> None:
        """Take down that the first `done` tokens are computed, and name the pages that are full by it."""
        sequence.done = done
        if sequence.root is None:
            return
        shared = done // PAGE
        if self._unit > 1:  # what was computed in other pieces is other bits
            shared = min(shared, sequence.begun // self._unit * self._unit // PAGE)
        for i in range(len(sequence.names), shared):
            self._name(sequence, i)
            self.pages.publish(sequence.pages[i], sequence.names[i])

    def _count(self, sequence: Sequence, left: int) -> int:
        """Return how many of a sequence's tokens are computed now, with `left` tokens to give."""
        whole = sequence.whole - sequence.done
        if whole > 0:
            return min(sequence.pending, whole) if left > 0 else 0
        count = min(sequence.pending, left)
        end = sequence.done + count
        if self._unit > 1 and count > 0 and end < sequence.begun:
            end = max(end // self._unit * self._unit, (sequence.done // self._unit + 1) * self._unit)
            count = min(end, sequence.begun) - sequence.done
        return max(count, 0)

    def _room(self, sequence: Sequence, tokens: int) -> bool:
        """Take pages for a sequence's first `tokens`; the last to come give way. False: it did itself."""
        need = pages_of(tokens) - len(sequence.pages)
        while need > self.pages.available:
            last = self.running[-1]
            self._preempt(last)
            if last is sequence:
                return False
        sequence.pages += [self.pages.take() for _ in range(need)]
        return True

    def _preempt(self, sequence: Sequence) -> None:
        """Put a sequence back to the front of the queue. It is computed again, to the same numbers."""
        self.preempted += 1
        self._release(sequence)
        self.running.remove(sequence)
        self.waiting.appendleft(sequence)

    def _release(self, sequence: Sequence) -> None:
        self.pages.release(reversed(sequence.pages))
        sequence.pages, sequence.done, sequence.names = [], 0, []

    def _admitted(self) -> Sequence | None:
        """Return the first of the queue that may begin, at work by then; None where none may."""
        if len(self.running) >= self._batch:
            return None
        sequence = next((one for one in self.waiting if not one.follows), None)
        if sequence is None:
            return None
        found = self._found(sequence)
        # All of it must fit, or it would give way before it has written a token.
        if pages_of(len(sequence.tokens) + 1) - len(found) > self.pages.available - sum(
            map(self.pages.idle, found)
        ):
            sequence.names = []
            return None
        for page in found:
            self.pages.hold(page)
        sequence.pages, sequence.done = found, len(found) * PAGE
        if not sequence.started:
            sequence.cached, sequence.started = sequence.done, True
        self.waiting.remove(sequence)
        self.running.append(sequence)
        return sequence

    def _found(self, sequence: Sequence) -> list[int]:
        """Return the first pages of a sequence that are there already, and name them."""
        sequence.names, found = [], list[int]()
        if sequence.root is None:
            return found
        # The last token is always computed: its logits were not kept.
        most = len(sequence.tokens) - 1
        if self._unit > 1:
            most = min(most, sequence.begun) // self._unit * self._unit
        for i in range(most // PAGE):
            self._name(sequence, i)
            page = self.pages.find(sequence.names[i])
            if page is None:
                break
            found.append(page)
        del found[len(found) * PAGE // self._unit * self._unit // PAGE :]
        del sequence.names[len(found) :]
        return found

    def _name(self, sequence: Sequence, i: int) -> None:
        before = sequence.names[i - 1] if i else sequence.root
        sequence.names.append(name(before or b"", sequence.tokens[i * PAGE : (i + 1) * PAGE]))
