"""Which replica computes a prompt: who remembers most of its beginning, unless that one has much to do.

A worker keeps the keys and values of prompts by pages (engine/pages). Who routes does not ask what it has
kept: what was sent there is remembered here, page by page, the longest unused forgotten first. A guess that
is wrong costs a prompt's time and no more.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import OrderedDict
from collections.abc import Collection, Container, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

PAGE = 16
"""Tokens of a page, as the engine has them."""
# Pages of a prompt that are looked at, 16,384 tokens; and that are remembered of a replica, 524,288 tokens.
_MOST, _KEPT = 1024, 32_768

Replica = TypeVar("Replica", bound=Hashable)


def names(prompt: Sequence[int], *, salt: str, adapter: str | None) -> list[bytes]:
    """Return a name for each full page of a prompt: a hash of all tokens up to its end.

    salt, adapter: prompts that differ in them share nothing.
    """
    found: list[bytes] = []
    name = hashlib.sha256(json.dumps([salt, adapter]).encode()).digest()
    for begin in range(0, min(len(prompt) // PAGE, _MOST) * PAGE, PAGE):
        name = hashlib.sha256(name + array("q", prompt[begin : begin + PAGE]).tobytes()).digest()
        found.append(name)
    return found


class Prefixes(Generic[Replica]):
    """What each replica was sent.

    slack: how many more answers than the least loaded one a replica may have and still be chosen for what it
    remembers. A prefix saves its own prompt's time and no more, and a longer queue costs everybody in it.
    """

    def __init__(self, slack: int) -> None:
        self._slack = slack
        self._kept: dict[Replica, OrderedDict[bytes, None]] = {}

    def choose(self, pages: Sequence[bytes], loads: Mapping[Replica, int]) -> Replica:
        """Return who shall compute a prompt. pages: their names. loads: the answers under way; not empty.

        Of those within the slack, who remembers most of it; of these who has least to do; of these the same
        one each time that a prompt begins with this page, so that several who route agree unasked.
        """
        least = min(loads.values())
        near = [replica for replica, load in loads.items() if load <= least + self._slack]
        return min(near, key=lambda one: (-self.shared(pages, one), loads[one], _rank(pages, one)))

    def shared(self, pages: Sequence[bytes], replica: Replica) -> int:
        """Return how many pages of a prompt's beginning a replica was sent before."""
        kept: Container[bytes] = self._kept.get(replica, ())
        return next((i for i, page in enumerate(pages) if page not in kept), len(pages))

    def remember(self, pages: Sequence[bytes], replica: Replica) -> None:
        """Note that a replica was sent a prompt."""
        kept = self._kept.setdefault(replica, OrderedDict())
        for page in reversed(pages):  # the beginning last: without it the rest is of no use
            kept[page] = None
            kept.move_to_end(page)
        while len(kept) > _KEPT:
            kept.popitem(last=False)

    def forget(self, replica: Replica) -> None:
        """Note that a replica has lost what it kept."""
        self._kept.pop(replica, None)

    def keep(self, replicas: Collection[Replica]) -> None:
        """Forget all replicas but these."""
        for gone in self._kept.keys() - set(replicas):
            del self._kept[gone]


def _rank(pages: Sequence[bytes], replica: Hashable) -> bytes:
    """Return a replica's place among equals (rendezvous hashing: Thaler and Ravishankar, 1998)."""
    return hashlib.sha256((pages[0] if pages else b"") + str(replica).encode()).digest()
