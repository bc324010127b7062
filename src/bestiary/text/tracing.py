"""Which characters of a rendered prompt came from which message: followed through any template.

A template may trim, split, join and reorder what it is given, so where a message ends up can only be seen by
marking it. Every character of every message is replaced by one from planes 4 to 13 of Unicode, where nothing
is assigned, another one for each message; the template is rendered with those; reading them back gives the
text and the message of each. What templates look at stays as it is: white space, and what JSON escapes.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from ..errors import RequestError

TEMPLATE = -1
"""The owner of text that the template itself wrote."""

_FIRST, _LAST = 0x40000, 0xDFFFF
_RUNS = re.compile(f"[{chr(_FIRST)}-{chr(_LAST)}]+|[^{chr(_FIRST)}-{chr(_LAST)}]+")
_UNMARKED = re.compile(r'[\s"\\\x00-\x1f]*')
_BETWEEN = re.compile(r'(?:[\s"\\\x00-\x1f]|\\[bfnrt]|\\u[0-9a-f]{4})*')  # as it is, or as JSON


@dataclass(frozen=True)
class Piece:
    """A stretch of a rendered text from one place: the template, or the message with this index.

    apart: the tokenizer is given it, and what follows, as a text of its own.
    """

    text: str
    owner: int
    apart: bool = False


class Marks:
    """A reversible replacement of characters that keeps their owners."""

    def __init__(self) -> None:
        self._real: dict[int, str] = {}
        self._tables: dict[int, _Table] = {}
        self._starts: list[int] = []
        self._owners: list[int] = []

    def mark(self, text: str, owner: int) -> str:
        """Replace every character that may be replaced."""
        return text.translate(self._table(owner))

    def mark_at(self, text: str, owner: int, places: Iterable[int]) -> str:
        """Replace only the characters at these places."""
        table, characters = self._table(owner), list(text)
        for place in places:
            characters[place] = chr(table[ord(characters[place])])
        return "".join(characters)

    def read(self, rendered: str) -> list[Piece]:
        """Restore a rendered text, cut where the owner changes.

        White space and quotes between two pieces of one message are that message's too.
        """
        groups: list[tuple[int, list[str]]] = []
        for match in _RUNS.finditer(rendered):
            for owner, text in self._runs(match[0]):
                inside = len(groups) > 1 and groups[-2][0] == owner != groups[-1][0] == TEMPLATE
                if inside and all(map(_BETWEEN.fullmatch, groups[-1][1])):
                    groups[-2][1].extend(groups.pop()[1])
                if groups and groups[-1][0] == owner:
                    groups[-1][1].append(text)
                else:
                    groups.append((owner, [text]))
        return [Piece("".join(texts), owner) for owner, texts in groups]

    def _table(self, owner: int) -> _Table:
        if owner not in self._tables:
            self._tables[owner] = _Table(self._real)
            self._starts.append(_FIRST + len(self._real))
            self._owners.append(owner)
        elif owner != self._owners[-1]:
            raise ValueError("the texts of one owner are marked one after another")
        return self._tables[owner]

    def _runs(self, run: str) -> Iterator[tuple[int, str]]:
        """Yield the stretches of one owner in a run that is marked throughout, or nowhere."""
        if not _FIRST <= ord(run[0]) <= _LAST:
            yield TEMPLATE, run
        elif self._owner(min(run)) == (owner := self._owner(max(run))):
            yield owner, run.translate(self._real)
        else:
            for owner, characters in groupby(run, self._owner):
                yield owner, "".join(characters).translate(self._real)

    def _owner(self, character: str) -> int:
        if ord(character) not in self._real:
            return TEMPLATE  # nobody marked it: the template wrote it
        return self._owners[bisect_right(self._starts, ord(character)) - 1]


class _Table(dict[int, int]):
    """str.translate's table for one owner; grows as characters are met."""

    def __init__(self, real: dict[int, str]) -> None:
        super().__init__()
        self._real = real

    def __missing__(self, code: int) -> int:
        mark = code
        if not _UNMARKED.fullmatch(chr(code)):
            mark = _FIRST + len(self._real)
            if mark > _LAST:
                raise RequestError(
                    "the messages together have too many different characters for a chat template"
                )
            self._real[mark] = chr(code)
        self[code] = mark
        return mark


def joined(pieces: Iterable[Piece]) -> str:
    """Return the text that the pieces make."""
    return "".join(piece.text for piece in pieces)
