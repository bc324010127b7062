"""Stretches of a text whose characters are tokens each: Galactica's formulas, proteins and DNA."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from .around import Around
from .boundary import checked
from .quirks.entry import Characters
from .stream import StreamDecoder
from .tokenizer import Tokenizer


class ByCharacter:
    """A Tokenizer (see tokenizer.py) that marks such stretches before another encodes them.

    A stretch is one only where the tokens that begin and end it are control tokens: as text they begin
    nothing.
    """

    def __init__(self, tokenizer: Tokenizer, characters: Characters) -> None:
        self._tokenizer, self._characters = tokenizer, characters
        self.vocab_size = tokenizer.vocab_size
        self.bos, self.eos = tokenizer.bos, tokenizer.eos
        self.add_bos, self.add_eos = tokenizer.add_bos, tokenizer.add_eos
        self.around: Around = tokenizer.around
        self.control: Mapping[str, int] = tokenizer.control
        self.mask = tokenizer.mask

    def encode(self, text: str, *, control: bool | Collection[str] = False) -> list[int]:
        """Return the ids of a text; see `Tokenizer.encode`."""
        allowed = self.control if control is True else set(control or ())
        marked = self._characters.within(allowed).apply(checked(text))
        return self._tokenizer.encode(marked, control=control)

    def decode(self, ids: Iterable[int], *, control: bool = False, continues: bool = False) -> str:
        """Return the text of ids; see `Tokenizer.decode`."""
        return self._tokenizer.decode(ids, control=control, continues=continues)

    def stream(self, *, control: bool = False, continues: bool = False) -> StreamDecoder:
        """Return a decoder that takes one id at a time; see `Tokenizer.stream`."""
        return self._tokenizer.stream(control=control, continues=continues)

    def piece(self, token: int) -> bytes:
        """Return the bytes that a token adds inside a text; see `Tokenizer.piece`."""
        return self._tokenizer.piece(token)
