"""Text encoded as text: in the middle of a prompt, and in pieces where one token must not come about."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

from ..errors import TokenizerError
from .tokenizer import Tokenizer

# Beginnings of texts, for finding out what a tokenizer does there.
_AFTER_CONTROL = ("a", " a", "\na", "A b", "1", "<|a")
_INSIDE = ("ST] a", "er|> b", "x", ">y", "]", "_a")
# White space of its own token, or characters in no vocabulary: nothing that follows merges with them.
_SHIELDS = ("", "\ue000", "\n")


class Verbatim:
    """Encodes text for a tokenizer, whatever it spells.

    Tokenizers made with SentencePiece write a space at the beginning of a text. Elsewhere that space would be
    one too many; there, text is encoded behind a shield whose tokens are then taken away.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._controls = frozenset(tokenizer.control.values())

    def encode(self, text: str, *, first: bool, cuts: Sequence[int] = ()) -> list[int]:
        """Return the ids of text that stands first in a prompt, or after a control token.

        cuts: places in the text across which no token reaches.
        Raises TokenizerError if the tokenizer's literal mode gives a control token.
        """
        ends = [0, *cuts, len(text)]
        ids = self._behind("" if first else self._after_control, text[: ends[1]])
        for start, end in pairwise(ends[1:]):
            ids += self._behind(self._inside, text[start:end])
        if self._controls.intersection(ids):
            raise TokenizerError("the tokenizer's literal mode gave a control token for text that spells one")
        return ids

    def inside(self, text: str) -> int | None:
        """Return a place in a short ASCII text that lies inside a token wherever the text stands.

        None if there is no such place: all of its characters are tokens of their own.
        """
        borders: set[int] = set()
        for before, after in ((0, 0), (1, 0), (0, 1)):
            end = -before
            for id in self._behind(self._inside, " " * before + text + "\n" * after):
                end += len(self._tokenizer.piece(id))
                borders.add(end)
        places = [place for place in range(1, len(text)) if place not in borders]
        return min(places, key=lambda place: abs(2 * place - len(text)), default=None)

    def _behind(self, shield: str, text: str) -> list[int]:
        ids = self._tokenizer.encode(shield + text)
        return ids[len(self._tokenizer.encode(shield)) :] if shield else ids

    @cached_property
    def _after_control(self) -> str:
        """The shield for text after a control token."""
        spelling = next((name for name in self._tokenizer.control if name.strip()), None)
        if spelling is None:
            return self._inside
        wanted = {text: self._tokenizer.encode(spelling + text, control=True)[1:] for text in _AFTER_CONTROL}
        fits = (s for s in _SHIELDS if all(self._behind(s, text) == wanted[text] for text in _AFTER_CONTROL))
        return next(fits, "")

    @cached_property
    def _inside(self) -> str:
        """The shield for text after other text."""

        def exact(shield: str, text: str) -> bool:
            ids = self._tokenizer.encode(shield + text)
            head = self._tokenizer.encode(shield) if shield else []
            rest = ids[len(head) :]
            return ids[: len(head)] == head and b"".join(map(self._tokenizer.piece, rest)) == text.encode()

        return next((s for s in _SHIELDS if all(exact(s, text) for text in _INSIDE)), "")
