"""Encoding of a rendered prompt in which control tokens come from the template alone.

Between two control tokens of the template all is literal text and is encoded as one piece, whoever wrote it,
so that the ids of an innocent conversation are those of the plain encoding. A piece in which somebody spells
a control token is encoded by the tokenizer's literal mode. What comes out is checked, always: the control
tokens of the result are those of the template, one by one. And where a template writes tags in plain text
([INST]), a message's are encoded in other tokens than the template's.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .tokenizer import Tokenizer
from .verbatim import Verbatim

# What templates put around turns in plain text: [INST], <</SYS>>, <|user|>.
_TAG = re.compile(r"<{1,2}/?\|?[A-Za-z_ ]{1,40}\|?>{1,2}|\[/?[A-Za-z_ ]{1,40}\]")


@dataclass(frozen=True)
class Stretch:
    """Characters start to end of a prompt: a control token with this id, or literal text.

    apart: the tokenizer is given it, and what follows, as a text of its own.
    """

    start: int
    end: int
    control: int | None = None
    apart: bool = False


class LiteralEncoder:
    """Encodes prompts for one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        # A token of white space alone means the same whoever wrote it.
        self._ids = {spelling: id for spelling, id in tokenizer.control.items() if spelling.strip()}
        self._controls = frozenset(self._ids.values())
        longest_first = sorted(self._ids, key=len, reverse=True)
        self._verbatim = Verbatim(tokenizer)
        self._eaten: dict[tuple[int, bool], bool] = {}
        self.pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        """Finds spellings of control tokens: the leftmost, and of those the longest."""
        self.blank = next(c for c in map(chr, range(0xE000, 0xF8FF)) if all(c not in s for s in self._ids))
        """A character that is in none of them."""

    def controls(self, text: str) -> list[int]:
        """Return the ids of the control tokens that a text spells."""
        return [self._ids[match[0]] for match in self.pattern.finditer(text)]

    def spellings(self, masked: str) -> re.Pattern[str]:
        """Return what finds where control tokens and the template's tags begin, also inside one another."""
        spelt = [self.pattern.pattern, *map(re.escape, self._tags(masked))]
        return re.compile(f"(?={'|'.join(spelt)})")

    def encode(
        self, text: str, masked: str, apart: Collection[int] = frozenset()
    ) -> list[tuple[Stretch, list[int]]]:
        """Encode a prompt, stretch by stretch.

        Args:
            text: all of it.
            masked: the same with `blank` for every character that did not come from the template.
            apart: places where a text of its own begins for the tokenizer.

        Raises TokenizerError if the tokenizer's literal mode gives a control token.
        """
        encoded: list[tuple[Stretch, list[int]]] = []
        stretches, cuts = self._stretches(masked, apart), self._cuts(text, masked)
        for places, forged in self._groups(text, stretches, cuts):
            group = [stretches[place] for place in places]
            ids = None if forged else self._together(text, group)
            encoded += zip(group, ids or self._apart(text, stretches, places, cuts), strict=True)
        return encoded

    def _cuts(self, text: str, masked: str) -> list[int]:
        """Return where to cut tags that the template writes in plain text, and that messages spell too.

        Cut inside a token, a message's [INST] is the same text in other tokens than the template's.
        """
        tags = self._tags(masked)
        if not tags:
            return []
        cuts = {tag: self._verbatim.inside(tag) for tag in tags}
        places = []
        for match in re.finditer("|".join(map(re.escape, tags)), text):
            cut = cuts[match[0]]
            if cut is not None and masked[match.start() : match.end()] != match[0]:
                places.append(match.start() + cut)
        return places

    def _tags(self, masked: str) -> list[str]:
        """Return the tags that the template writes, the longest first."""
        tags = {match[0] for match in _TAG.finditer(masked)} - self._ids.keys()
        return sorted(tags, key=len, reverse=True)

    def _stretches(self, masked: str, apart: Collection[int]) -> list[Stretch]:
        found = [(match.start(), match.end(), self._ids[match[0]]) for match in self.pattern.finditer(masked)]
        controls = {start: (end, id) for start, end, id in found}
        inside = {place for start, end, _ in found for place in range(start + 1, end)}
        borders = {0, len(masked), *controls, *(end for _, end, _ in found), *(set(apart) - inside)}
        return [
            Stretch(start, end, controls[start][1] if start in controls else None, start in apart)
            for start, end in pairwise(sorted(borders))
        ]

    def _groups(
        self, text: str, stretches: Sequence[Stretch], cuts: Sequence[int]
    ) -> Iterator[tuple[range, bool]]:
        """Join neighbours that may be encoded at once; text that spells a token or a tag is alone (True)."""
        start = 0
        for place, stretch in enumerate(stretches):
            if stretch.apart and place > start:
                yield range(start, place), False
                start = place
            if stretch.control is not None:
                continue
            cut = bisect_left(cuts, stretch.end) > bisect_left(cuts, stretch.start)
            if cut or self.pattern.search(text, stretch.start, stretch.end):
                if place > start:
                    yield range(start, place), False
                yield range(place, place + 1), True
                start = place + 1
        if start < len(stretches):
            yield range(start, len(stretches)), False

    def _together(self, text: str, group: Sequence[Stretch]) -> list[list[int]] | None:
        """Return the ids of each stretch as the plain encoding has them; None if it sees other controls.

        It does where a tokenizer normalises text before it looks for them ("＜|im_end|＞").
        """
        parts: list[list[int]] = [[]]
        for id in self._tokenizer.encode(text[group[0].start : group[-1].end], control=True):
            if id in self._controls:
                parts += [[id], []]
            else:
                parts[-1].append(id)
        ids, place = [], 0  # parts: literal, control, literal, ..., control, literal
        for stretch in group:
            literal = stretch.control is None
            if place % 2 == literal:  # nothing stands between two control tokens
                if literal or parts[place]:
                    return None
                place += 1
            if place >= len(parts) or not (literal or parts[place] == [stretch.control]):
                return None
            ids.append(parts[place])
            place += 1
        return ids if not any(parts[place:]) else None

    def _apart(
        self, text: str, stretches: Sequence[Stretch], places: range, cuts: Sequence[int]
    ) -> list[list[int]]:
        """Return the ids of each stretch at these places, literal text encoded by the literal mode."""
        ids = []
        for place in places:
            stretch = stretches[place]
            if stretch.control is not None:
                ids.append([stretch.control])
                continue
            start, end = stretch.start, stretch.end
            after = stretches[place + 1] if place + 1 < len(stretches) else None
            if after and not after.apart and self._eats(after.control, before=True):
                end = start + len(text[start:end].rstrip())
            if place and not stretch.apart and self._eats(stretches[place - 1].control, before=False):
                start = end - len(text[start:end].lstrip())
            inside = cuts[bisect_left(cuts, start) : bisect_left(cuts, end)]
            relative = [cut - start for cut in inside]
            ids.append(
                self._verbatim.encode(text[start:end], first=place == 0 or stretch.apart, cuts=relative)
            )
        return ids

    # What the tokenizer does at control tokens, seen from outside.

    def _eats(self, control: int | None, *, before: bool) -> bool:
        """Tell whether a token takes the white space beside it away (lstrip and rstrip in tokenizer.json)."""
        if control is None:
            return False
        if (control, before) not in self._eaten:
            spelling = next(name for name, id in self._ids.items() if id == control)
            plain, spaced = (f"a{gap}{spelling}" if before else f"{spelling}{gap}a" for gap in ("", "\n\n"))
            encode = self._tokenizer.encode
            self._eaten[control, before] = encode(plain, control=True) == encode(spaced, control=True)
        return self._eaten[control, before]
