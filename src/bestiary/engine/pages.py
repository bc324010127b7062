"""Pages of the cache: which are free, which hold what, and which several sequences share.

A full page is named by a hash of all tokens up to its end, so a sequence that begins alike finds it. A page
that nobody holds keeps its name until it is needed for something else, the longest unheld first.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence

PAGE = 16
"""Tokens of a page."""


def name(before: bytes, tokens: Sequence[int]) -> bytes:
    """Return the name of a page: SHA-256 of the name of the page before it and of its tokens.

    Not a quick hash: whoever finds two texts of one hash reads another's answer (CVE-2025-25183 of vLLM).
    """
    return hashlib.sha256(before + array("q", tokens).tobytes()).digest()


class Pages:
    """`count` pages, each held by any number of sequences, free to take or kept under its name."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._clean = list(range(count - 1, -1, -1))  # the lowest first: memory is taken as it is needed
        self._kept: OrderedDict[int, None] = OrderedDict()  # named and held by nobody, the oldest first
        self._holders = [0] * count
        self._names: list[bytes | None] = [None] * count
        self._named: dict[bytes, int] = {}

    @property
    def free(self) -> int:
        """Pages that hold nothing."""
        return len(self._clean)

    @property
    def cached(self) -> int:
        """Pages that nobody holds and that are kept under their names."""
        return len(self._kept)

    @property
    def available(self) -> int:
        """Pages that can be taken."""
        return len(self._clean) + len(self._kept)

    def take(self) -> int:
        """Return a page to write on, held once. There must be one available."""
        if self._clean:
            page = self._clean.pop()
        else:
            page, _ = self._kept.popitem(last=False)
            self._forget(page)
        self._holders[page] = 1
        return page

    def release(self, pages: Iterable[int]) -> None:
        """Let go of pages, the last of a sequence first: the beginning is what others share."""
        for page in pages:
            self._holders[page] -= 1
            if self._holders[page]:
                continue
            if self._names[page] is None:
                self._clean.append(page)
            else:
                self._kept[page] = None

    def find(self, page_name: bytes) -> int | None:
        """Return the page of this name; None where there is none."""
        return self._named.get(page_name)

    def idle(self, page: int) -> bool:
        """Tell whether nobody holds a page."""
        return page in self._kept

    def hold(self, page: int) -> None:
        """Hold a page once more, so that it stays."""
        self._holders[page] += 1
        self._kept.pop(page, None)

    def publish(self, page: int, page_name: bytes) -> None:
        """Give a page that is full its name, unless another has it already."""
        if page_name not in self._named and self._names[page] is None:
            self._names[page] = page_name
            self._named[page_name] = page

    def _forget(self, page: int) -> None:
        held = self._names[page]
        if held is not None:
            del self._named[held]
            self._names[page] = None
