"""The bytes that each token adds to a text, as the decoder prints them: what a grammar sees of a vocabulary.

A token's text is not always the same. At a text's start some lose the space in front of them, and where a
word ends by a mark (CLIP, GPT-1) its space comes with the token behind it. So there is a row of texts for
each place that a decoder can be in, found by asking it. Many ids may have one text; a grammar knows texts.
"""

from __future__ import annotations

import codecs
from array import array
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from llguidance import LLTokenizer, TokenizerWrapper
from torch import Tensor

from ..errors import TokenizerError
from ..text.stream import StreamDecoder
from ..text.tokenizer import Tokenizer

_MOST_PLACES = 16  # of a decoder; the published ones have one to four


@dataclass(frozen=True)
class Place:
    """Where in a text the next token stands.

    texts: int64 (V,), the number of the text that each id adds here. after: the number of the place that each
    leads to; empty where none leads elsewhere.
    """

    texts: Tensor
    after: array[int]


@dataclass(frozen=True)
class _Table:
    """tokens: the texts as llguidance knows them. starts: continues -> the number of the first place."""

    tokens: LLTokenizer
    places: tuple[Place, ...]
    starts: dict[bool, int]


class Spelling:
    """The texts of a tokenizer's ids: made when they are first asked for, which takes a moment, and kept.

    Control tokens, and ids that print nothing, have the text of nothing: no grammar allows them.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @property
    def tokens(self) -> LLTokenizer:
        """The texts as llguidance knows them: a text's number is its id there, and the last is the end."""
        return self._table.tokens

    def start(self, *, continues: bool) -> int:
        """Return the number of an answer's first place; continues: it goes on after another text."""
        return self._table.starts[continues]

    def place(self, number: int) -> Place:
        """Return a place by its number."""
        return self._table.places[number]

    def following(self, number: int, token: int) -> int:
        """Return the number of the place that a token leads to."""
        after = self._table.places[number].after
        return after[token] if after else number

    @cached_property
    def _table(self) -> _Table:
        found = _Places(self._tokenizer)
        starts = {continues: found.number(continues, ()) for continues in (True, False)}
        rows: list[Place] = []
        while len(rows) < len(found.paths):
            rows.append(found.row(len(rows)))
        texts = [*found.texts, b""]
        tokens = LLTokenizer(TokenizerWrapper(_Texts(texts)), n_vocab=len(texts), eos_token=len(texts) - 1)
        return _Table(tokens, tuple(rows), starts)


class _Texts:
    """What LLTokenizer asks of a tokenizer's wrapper (llguidance/_tokenizer.py)."""

    bos_token_id = None

    def __init__(self, tokens: list[bytes]) -> None:
        self.tokens = tokens
        self.eos_token_id = len(tokens) - 1
        self.special_token_ids = [self.eos_token_id]

    def __call__(self, text: bytes | str) -> list[int]:
        # Asked how a forced text would be cut into tokens; run/sources.py says that nothing is forced.
        return []


class _Places:
    """Goes through all places of a decoder. paths: how to come to each, from where and by which tokens.

    texts: each text, in the order of their numbers.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.texts: dict[bytes, int] = {b"": 0}
        self.paths: list[tuple[bool, tuple[int, ...]]] = []
        self._numbers: dict[Hashable, int] = {}
        silent = set(tokenizer.control.values())
        pieces = (b"" if token in silent else tokenizer.piece(token) for token in range(tokenizer.vocab_size))
        self._pieces = [_split(piece) for piece in pieces]

    def number(self, continues: bool, path: tuple[int, ...]) -> int:
        """Return the number of the place behind some tokens."""
        return self._named(self._decoder(continues, path).place(), continues, path)

    def _named(self, place: Hashable, continues: bool, path: tuple[int, ...]) -> int:
        if place not in self._numbers:
            self._numbers[place] = len(self.paths)
            self.paths.append((continues, path))
            if len(self.paths) > _MOST_PLACES:
                raise TokenizerError("what this tokenizer's tokens print depends on too much for a grammar")
        return self._numbers[place]

    def _decoder(self, continues: bool, path: tuple[int, ...]) -> StreamDecoder:
        decoder = self._tokenizer.stream(continues=continues)
        for token in path:
            decoder.push(token)
        return decoder

    def row(self, number: int) -> Place:
        """Return what each id prints in a place, and where it leads."""
        continues, path = self.paths[number]
        fresh: Callable[[], StreamDecoder] = partial(self._decoder, continues, path)
        texts, after, decoder = array("q"), array("b"), fresh()
        here = decoder.place()
        for token, (whole, rest) in enumerate(self._pieces):
            printed = whole
            if whole or rest:
                said, there = decoder.push(token), decoder.place()
                # What is no UTF-8 is never allowed; what is half of a character, the decoder keeps.
                printed = said.encode() + rest if rest is not None else whole
                after.append(number if there == here else self._named(there, continues, (*path, token)))
                if rest != b"" or there != here:
                    decoder = fresh()
            else:
                after.append(number)
            texts.append(self.texts.setdefault(printed, len(self.texts)))
        moves = any(one != number for one in after)
        return Place(torch.tensor(texts), after if moves else array("b"))


def _split(piece: bytes) -> tuple[bytes, bytes | None]:
    """Return a token's bytes, and those at its end that begin a character; None where they are no UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(piece)
    except UnicodeDecodeError:
        return piece, None
    return piece, decoder.getstate()[0]
