"""Which tokens of a prompt are whose: for loss masks, and for showing a prompt in colours."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from .literal import Stretch
from .tracing import TEMPLATE, Piece


@dataclass(frozen=True)
class Span:
    """Tokens start to end of a prompt, all from one place.

    message: the index of the message whose content they hold; None for the template's own text, and for
    tools. role: that message's role; "tools" for the descriptions of tools; None for the template's own text.
    """

    start: int
    end: int
    role: str | None = None
    message: int | None = None
    is_content: bool = False


@dataclass(frozen=True)
class Part:
    """Characters of a prompt that have one role (None: the template's own), or spell one control token."""

    text: str
    role: str | None
    is_control: bool = False


def parts(pieces: Iterable[Piece], roles: Sequence[str], control: re.Pattern[str]) -> Iterator[Part]:
    """Yield a prompt's text by role; control finds what spells a control token in the template's own text."""
    for piece in pieces:
        role = _span(0, 0, piece.owner, roles).role
        place = 0
        for match in control.finditer(piece.text) if piece.owner == TEMPLATE else ():
            if match.start() > place:
                yield Part(piece.text[place : match.start()], role)
            yield Part(match[0], role, is_control=True)
            place = match.end()
        if place < len(piece.text):
            yield Part(piece.text[place:], role)


def spans(
    encoded: Iterable[tuple[Stretch, list[int]]],
    pieces: Sequence[Piece],
    roles: Sequence[str],
    piece: Callable[[int], bytes],
) -> list[Span]:
    """Return the spans of a prompt, which cover all of its tokens.

    A token that holds a character of a message counts as that message's. Through Jinja, white space at the
    very edges of a message counts as the template's (many templates trim it).

    Args:
        encoded: the stretches of the text and their ids.
        pieces: the text by owner; owner len(roles) is the tools, and the next a format's values.
        roles: of the messages.
        piece: the bytes of a token.
    """
    owners: list[int] = []
    text = "".join(part.text for part in pieces)
    places = _Places(pieces)
    for stretch, ids in encoded:
        if stretch.control is not None:
            owners += [TEMPLATE] * len(ids)
        else:
            cut = places.cut(stretch.start, stretch.end)
            owners += _owners(text[stretch.start : stretch.end], cut, [piece(id) for id in ids])
    found, start = [], 0
    for owner, tokens in groupby(owners):
        end = start + sum(1 for _ in tokens)
        found.append(_span(start, end, owner, roles))
        start = end
    return found


def _span(start: int, end: int, owner: int, roles: Sequence[str]) -> Span:
    if owner == TEMPLATE or owner > len(roles):
        return Span(start, end)
    if owner == len(roles):
        return Span(start, end, "tools", None, True)
    return Span(start, end, roles[owner], owner, True)


class _Places:
    """The pieces by place; asked for stretches from left to right."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces, self._next, self._start = pieces, 0, 0

    def cut(self, start: int, end: int) -> list[Piece]:
        """Return the pieces of characters start to end."""
        cut = []
        while self._next < len(self._pieces):
            piece = self._pieces[self._next]
            low, high = max(start - self._start, 0), end - self._start
            if text := piece.text[low : max(high, 0)]:
                cut.append(Piece(text, piece.owner))
            if high < len(piece.text):
                break
            self._start += len(piece.text)
            self._next += 1
        return cut


def _owners(text: str, pieces: Sequence[Piece], tokens: Sequence[bytes]) -> list[int]:
    """Return each token's owner: whose text its bytes are."""
    owners = {piece.owner for piece in pieces} - {TEMPLATE}
    wanted, got = text.encode(), b"".join(tokens)
    if not owners or wanted.strip() != got.strip():
        # A tokenizer that normalises text: where the borders are is not known, whose text it is may be.
        return [owners.pop() if len(owners) == 1 else TEMPLATE] * len(tokens)
    # The tokens may begin with a space that the text lacks, or lack white space that a control token took.
    shift = (len(wanted) - len(wanted.lstrip())) - (len(got) - len(got.lstrip()))
    ends, end = [], 0
    for piece in pieces:
        end += len(piece.text.encode())
        ends.append((end, piece.owner))
    found, place, start = [], 0, shift
    for token in tokens:
        while place < len(ends) - 1 and ends[place][0] <= start:
            place += 1
        reach = place
        owner = ends[place][1]
        while owner == TEMPLATE and reach < len(ends) - 1 and ends[reach][0] < start + len(token):
            reach += 1
            owner = ends[reach][1]
        found.append(owner)
        start += len(token)
    return found


def learned(
    ids: Sequence[int], found: Iterable[Span], stops: Collection[int], spaces: Collection[int] = frozenset()
) -> list[bool]:
    """Return which tokens a model is trained on: those of answers, and the token that ends each.

    stops: the tokens that end an answer. spaces: those that are white space alone; they are learned where
    they stand between an answer and its end, as in Llama 2's " </s>". What else stands between turns, and
    what others say, is not learned.
    """
    mask = [False] * len(ids)
    for span in found:
        if span.role == "assistant":
            end = span.end
            while end < len(ids) and ids[end] in spaces and ids[end] not in stops:
                end += 1
            end = end + 1 if end < len(ids) and ids[end] in stops else span.end
            mask[span.start : end] = [True] * (end - span.start)
    return mask
