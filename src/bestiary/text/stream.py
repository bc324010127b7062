"""Text out of token ids, one id at a time, exactly as decoding all of them at once would give it.

A token is not a piece of text: it can be half a character, a run of bytes that is no UTF-8, or a word whose
leading space counts only inside a sentence. Each published decoder is one small class here that is fed tokens
and gives the text that no later token can change; decoding a whole sequence is the same feeding in one go, so
that both agree by construction. The work is O(1) a token.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Protocol

SPACE = "\u2581"  # "▁", how SentencePiece writes a space


class StreamDecoder(Protocol):
    """Takes ids and gives text; a character whose bytes have not all come is held back."""

    def push(self, token: int) -> str:
        """Return the text that this id settles, "" while it is open."""

    def flush(self) -> str:
        """Return what was held back, U+FFFD for bytes that are no character. Ends the text."""

    def place(self) -> Hashable:
        """Return what of the text so far the next token's own text depends on, beside bytes held back.

        Where two decoders of one kind agree in it, they print the same for the same tokens.
        """


def decode(stream: StreamDecoder, ids: Iterable[int]) -> str:
    """Return the text of a whole sequence of ids."""
    return "".join([*map(stream.push, ids), stream.flush()])


class Step(Protocol):
    """One part of a decoder: tokens in, tokens out."""

    def feed(self, tokens: list[str]) -> list[str]:
        """Return what these tokens settle."""

    def close(self) -> list[str]:
        """Return what was held back."""

    def inner(self, token: bytes) -> bytes:
        """Return what one token adds inside a text."""

    def place(self) -> Hashable:
        """Return what of the tokens so far the next one depends on, beside bytes held back."""


class Chain:
    """A StreamDecoder made of steps, each fed with what the one before it gave.

    token: gives an id's token, None for an id that adds nothing to the text.
    """

    def __init__(self, token: Callable[[int], str | None], steps: Sequence[Step]) -> None:
        self._token, self._steps = token, steps

    def push(self, token: int) -> str:
        text = self._token(token)
        if text is None:
            return ""
        tokens = [text]
        for step in self._steps:
            tokens = step.feed(tokens)
        return "".join(tokens)

    def flush(self) -> str:
        tokens: list[str] = []
        for step in self._steps:
            tokens = [*step.feed(tokens), *step.close()] if tokens else step.close()
        return "".join(tokens)

    def place(self) -> Hashable:
        return tuple(step.place() for step in self._steps)


# The decoders of tokenizer.json, as the `tokenizers` library computes them (its src/decoders and
# src/pre_tokenizers).


def _visible_bytes() -> dict[str, int]:
    """Return GPT-2's alphabet: each byte as a character that can be seen."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in set(seen)]
    return {chr(byte): byte for byte in seen} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


BYTE_OF = _visible_bytes()


def visible_to_bytes(token: str) -> bytes:
    """Return the bytes of a byte-level token; one with a character outside the alphabet stands for itself."""
    try:
        return bytes([BYTE_OF[character] for character in token])
    except KeyError:
        return token.encode()


class ByteLevel:
    """GPT-2's byte-level tokens: all bytes joined, then read as UTF-8."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, tokens: list[str]) -> list[str]:
        return [self._utf8.decode(b"".join(map(visible_to_bytes, tokens)))]

    def close(self) -> list[str]:
        return [self._utf8.decode(b"", True)]

    def inner(self, token: bytes) -> bytes:
        return visible_to_bytes(token.decode())

    def place(self) -> Hashable:
        return None


class Replace:
    """One string by another, within a token."""

    def __init__(self, old: str, new: str) -> None:
        self._old, self._new = old, new

    def feed(self, tokens: list[str]) -> list[str]:
        return [token.replace(self._old, self._new) for token in tokens]

    def close(self) -> list[str]:
        return []

    def inner(self, token: bytes) -> bytes:
        return token.replace(self._old.encode(), self._new.encode())

    def place(self) -> Hashable:
        return None


# "<0x0A>"; the library also takes "<0x+A>", which Rust's from_str_radix reads as 10.
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2}|\+[0-9A-Fa-f])>")


def _replace_one_byte(error: UnicodeError) -> tuple[str, int]:
    if isinstance(error, UnicodeDecodeError):
        return "\ufffd", error.start + 1
    raise error


# SentencePiece gives each bad byte a U+FFFD of its own; Python's "replace" gives one to a cut-off character.
codecs.register_error("bestiary.one-byte", _replace_one_byte)


class ByteFallback:
    """Runs of "<0xE4>" tokens: the characters they spell, and a U+FFFD for each byte that is part of none.

    So does SentencePiece, where these tokens come from. The `tokenizers` library gives up a whole run for one
    bad byte; to do the same would hold back every newline of a Llama until the token after it.
    """

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")("bestiary.one-byte")

    def feed(self, tokens: list[str]) -> list[str]:
        out = []
        for token in tokens:
            if byte := BYTE.fullmatch(token):
                out.append(self._utf8.decode(bytes([int(byte[1], 16)])))
            else:
                out += [self._utf8.decode(b"", True), token]
        return out

    def close(self) -> list[str]:
        return [self._utf8.decode(b"", True)]

    def inner(self, token: bytes) -> bytes:
        byte = BYTE.fullmatch(token.decode())
        return bytes([int(byte[1], 16)]) if byte else token

    def place(self) -> Hashable:
        return None


class StripStart:
    """Up to `count` of one character, off the front of the whole text (a Strip that follows a Fuse)."""

    def __init__(self, character: str, count: int) -> None:
        self._character, self._left = character, count

    def feed(self, tokens: list[str]) -> list[str]:
        if not self._left:
            return tokens
        text = "".join(tokens)
        kept = text
        while self._left and kept.startswith(self._character):
            kept, self._left = kept[1:], self._left - 1
        if kept:
            self._left = 0
        return [kept]

    def close(self) -> list[str]:
        return []

    def inner(self, token: bytes) -> bytes:
        return token

    def place(self) -> Hashable:
        return self._left


class Metaspace:
    """Each "▁" a space; those of the first token vanish when the encoder puts one there."""

    def __init__(self, mark: str, *, drop_first: bool) -> None:
        self._mark, self._first = mark, "" if drop_first else " "

    def feed(self, tokens: list[str]) -> list[str]:
        out = []
        for token in tokens:
            out.append(token.replace(self._mark, self._first))
            self._first = " "
        return out

    def close(self) -> list[str]:
        return []

    def inner(self, token: bytes) -> bytes:
        return token.replace(self._mark.encode(), b" ")

    def place(self) -> Hashable:
        return self._first


# The order counts: each replacement sees what the one before it left.
_CLEAN = (
    [(f" {mark}", mark) for mark in ".?!,"]
    + [(" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" do not", " don't")]
    + [(f" {ending}", ending) for ending in ("'s", "'ve", "'re")]
)


class WordPiece:
    """BERT's pieces: a space before each but the first, unless it begins with "##".

    clean: take the space away that a token of punctuation would bring, as the published tokenizer.json asks.
    """

    def __init__(self, prefix: str, *, clean: bool, first: bool) -> None:
        self._prefix, self._clean, self._first = prefix, clean, first

    def feed(self, tokens: list[str]) -> list[str]:
        return [self._word(token) for token in tokens]

    def _word(self, token: str) -> str:
        if not self._first:
            token = token.removeprefix(self._prefix) if token.startswith(self._prefix) else f" {token}"
        self._first = False
        if self._clean:
            for old, new in _CLEAN:
                token = token.replace(old, new)
        return token

    def close(self) -> list[str]:
        return []

    def inner(self, token: bytes) -> bytes:
        prefix = self._prefix.encode()
        return token.removeprefix(prefix) if token.startswith(prefix) else b" " + token

    def place(self) -> Hashable:
        return self._first


class WordEnd:
    """GPT-1's and CLIP's "</w>" at the end of a word: a space, but none after the last word."""

    def __init__(self, suffix: str) -> None:
        self._suffix, self._held = suffix, ""

    def feed(self, tokens: list[str]) -> list[str]:
        out = []
        for token in tokens:
            word, ending, rest = token.partition(self._suffix)
            out += [self._held.replace(self._suffix, " "), word]
            self._held = ending + rest
        return out

    def close(self) -> list[str]:
        held, self._held = self._held, ""
        return [held.replace(self._suffix, "")]

    def inner(self, token: bytes) -> bytes:
        return token.replace(self._suffix.encode(), b" ")

    def place(self) -> Hashable:
        return self._held


# Decoders of the other libraries.


class Bytes:
    """A StreamDecoder of tokens that are plain bytes (tiktoken): all joined, then read as UTF-8."""

    def __init__(self, piece: Callable[[int], bytes]) -> None:
        self._piece = piece
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        return self._utf8.decode(self._piece(token))

    def flush(self) -> str:
        return self._utf8.decode(b"", True)

    def place(self) -> Hashable:
        return None


class SentencePiece:
    """A StreamDecoder that does what SentencePieceProcessor::Decode does (src/sentencepiece_processor.cc).

    piece: gives an id's text with "▁" for spaces, the number of a byte piece's byte, or None for what adds
    nothing.
    drop_first: the text loses one leading "▁" (the model puts one there). drop_all: leading pieces "▁" vanish
    too.
    """

    def __init__(self, piece: Callable[[int], str | int | None], *, drop_first: bool, drop_all: bool) -> None:
        self._piece, self._start, self._drop_all = piece, drop_first or drop_all, drop_all
        self._utf8 = codecs.getincrementaldecoder("utf-8")("bestiary.one-byte")

    def push(self, token: int) -> str:
        piece = self._piece(token)
        if piece is None:
            return ""
        if isinstance(piece, int):
            self._start = False
            return self._utf8.decode(bytes([piece]))
        held = self._utf8.decode(b"", True)
        if self._start:
            bare = piece.removeprefix(SPACE)
            self._start = (self._drop_all and not bare) or not piece
            piece = bare
        return held + piece.replace(SPACE, " ")

    def flush(self) -> str:
        return self._utf8.decode(b"", True)

    def place(self) -> Hashable:
        return self._start
