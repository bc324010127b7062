"""CPM-2's tokenizer, of a vocab.txt: words by jieba, then the longest token first.

As in TsinghuaAI/CPM-2-Finetune, tokenization_enc_dec.py (Chinese) and tokenization_enc_dec_encn.py (Chinese
and English). A space is written "▂" and a newline "▃"; both as characters of a text are a space and a
newline. The second form marks what continues an English word with "##", leaves out the spaces between two
English tokens, and, as published, gives a text of one token that token twice.
"""

from __future__ import annotations

import functools
import importlib
import re
import warnings
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import TokenizerError
from ..files import paths
from . import hf, stream
from .boundary import MAX_FILE, checked, guarded, reading
from .declared import Declared
from .pipeline import Special
from .sentencepiece import any_of

_SPACE, _LINE = "\u2582", "\u2583"
_WRITTEN = str.maketrans(" \n", _SPACE + _LINE)
_READ = str.maketrans(_SPACE + _LINE, " \n")
_LONGEST_WORD = 200  # in characters; a longer one is unknown
# jieba's time grows with the square of a run of these: 0.5 s for 10,000, and 51 s for 100,000.
_LONG_RUN = re.compile("[\u4e00-\u9fd5]{10001}")
_CHINESE = re.compile("[\u4e00-\u9fff]")
_INSIDE = "##"
# Full-width forms become ASCII, but for the marks that Chinese text is written with.
_HALF_WIDTH = {0x3000: " "} | {
    ord(one): chr(ord(one) - 0xFEE0) for one in map(chr, range(0xFF01, 0xFF5F)) if one not in "，！（）？；："
}
_UNKNOWN = "<unk>"
_NAMED = re.compile(r"<(s|/s|sep|pad|mask|go|eod|s_\d{1,4})>")


class CpmTokenizer:
    """A Tokenizer (see tokenizer.py) over the `jieba` library. english: the form for English too."""

    def __init__(self, vocab: Mapping[str, int], special: Special, *, english: bool) -> None:
        self.bos, self.eos, self.mask = special.bos, special.eos, special.mask
        self.add_bos, self.add_eos, self.around = special.add_bos, special.add_eos, special.wrapping
        self.control: Mapping[str, int] = special.control
        self._english, self._unknown = english, vocab[_UNKNOWN]
        controls = set(self.control.values())
        # What greedy matching may give: no control token is among it, so no text gives one.
        self._vocab = {word: number for word, number in vocab.items() if number not in controls}
        self._longest = min(max(map(len, self._vocab)), _LONGEST_WORD)
        self._words = {number: word for word, number in (*vocab.items(), *self.control.items())}
        self._silent = frozenset(controls)
        self._marks = any_of(self.control)
        self.vocab_size = max(self._words) + 1

    def encode(self, text: str, *, control: bool | Collection[str] = False) -> list[int]:
        """Return the ids of a text; see `Tokenizer.encode`."""
        checked(text)
        marks = self._marks if control is True else any_of(self.control.keys() & set(control or ()))
        with guarded("the text cannot be encoded"):
            if marks is None:
                return self._literal(text)
            return [one for ids in self._segments(text, marks) for one in ids]

    def _segments(self, text: str, marks: re.Pattern[str]) -> Iterator[list[int]]:
        at = 0
        for found in marks.finditer(text):
            yield self._literal(text[at : found.start()])
            yield [self.control[found[0]]]
            at = found.end()
        yield self._literal(text[at:])

    def _literal(self, text: str) -> list[int]:
        text = text if self._english else text.translate(_HALF_WIDTH)
        if found := _LONG_RUN.search(text):
            raise TokenizerError(
                f"more than 10,000 Chinese characters follow character {found.start()} without a mark or a "
                "space, which jieba takes very long to cut into words. Put marks or spaces among them"
            )
        ids = [one for word in jieba().cut(text) for one in self._word(word.translate(_WRITTEN))]
        return self._unspaced(ids) if self._english and ids else ids

    def _word(self, word: str) -> Iterator[int]:
        """Yield a word's tokens, the longest that fits each time; a character that has none is unknown."""
        if len(word) > _LONGEST_WORD:
            yield self._unknown
            return
        start = 0
        while start < len(word):
            for end in range(min(len(word), start + self._longest), start, -1):
                token = word[start:end]
                if self._english and start and not _is_chinese(token):
                    token = _INSIDE + token
                if (number := self._vocab.get(token)) is not None:
                    yield number
                    start = end
                    break
            else:
                yield self._unknown
                start += 1

    def _unspaced(self, ids: list[int]) -> list[int]:
        """Leave out the spaces between English tokens; the first and the last token always stay."""
        space = self._vocab.get(_SPACE)
        kept = [
            one
            for before, one, after in zip(ids, ids[1:-1], ids[2:], strict=False)
            if one != space or _is_chinese(self._words[before]) or _is_chinese(self._words[after])
        ]
        return [ids[0], *kept, ids[-1]]

    def decode(self, ids: Iterable[int], *, control: bool = False, continues: bool = False) -> str:
        """Return the text of ids; see `Tokenizer.decode`."""
        return stream.decode(self.stream(control=control, continues=continues), ids)

    def stream(self, *, control: bool = False, continues: bool = False) -> stream.StreamDecoder:
        """Return a decoder that takes one id at a time; see `Tokenizer.stream`."""
        words = self._words.get if control else self._spoken
        return stream.Chain(words, [_Spaced(continues=continues)] if self._english else [_Written()])

    def _spoken(self, token: int) -> str | None:
        return None if token in self._silent else self._words.get(token)

    def piece(self, token: int) -> bytes:
        """Return the bytes that a token adds inside a text; see `Tokenizer.piece`."""
        word = self._words.get(token, "")
        if token in self._silent or not word:
            return word.encode()
        step = _Spaced(continues=True) if self._english else _Written()
        return "".join(step.feed([word])).encode()


def _is_chinese(token: str) -> bool:
    """Tell whether a token counts as Chinese, which needs no spaces; a space does too."""
    return token == _SPACE or _CHINESE.search(token) is not None


class _Written:
    """A decoder's step: "▂" is a space and "▃" a newline."""

    def feed(self, tokens: list[str]) -> list[str]:
        return [token.translate(_READ) for token in tokens]

    def close(self) -> list[str]:
        return []

    def inner(self, token: bytes) -> bytes:
        return token.decode().translate(_READ).encode()

    def place(self) -> Hashable:
        return None


class _Spaced(_Written):
    """The same, with a space between two tokens that are not Chinese, unless the second begins with "##".

    The published decoder first joins all that begins with "##" to what is before it, and so would put a space
    before a "▂" that a "##" follows, which no encoded text has and which a stream has given out by then.
    """

    def __init__(self, *, continues: bool) -> None:
        self._word: str | None = "a" if continues else None  # what a "##" would go on with

    def feed(self, tokens: list[str]) -> list[str]:
        return [self._next(token).translate(_READ) for token in tokens]

    def _next(self, token: str) -> str:
        if self._word is not None and token.startswith(_INSIDE):
            self._word += token.removeprefix(_INSIDE)
            return token.removeprefix(_INSIDE)
        apart = self._word is not None and not _is_chinese(self._word) and not _is_chinese(token)
        self._word = token
        return f" {token}" if apart else token

    def place(self) -> Hashable:
        word = self._word
        return None if word is None else (_is_chinese(word), word == _SPACE)


@functools.cache
def jieba() -> Any:
    """Return jieba's own dictionary, ready to cut words.

    It is built here: jieba would load it from a file of everybody's temporary folder with marshal, which runs
    what is in it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # escapes in its regular expressions, and pkg_resources
            library = importlib.import_module("jieba")
    except ImportError as error:
        raise TokenizerError(
            "this tokenizer (CPM-2's) cuts words with jieba, which is not installed. Type: pip install jieba"
        ) from error
    words = library.Tokenizer()
    words.FREQ, words.total = words.gen_pfdict(words.get_dict_file())
    words.initialized = True
    return words


def load(path: Path, said: Declared, *, control: Mapping[str, int]) -> CpmTokenizer:
    """Return the tokenizer of CPM-2's vocab.txt.

    said: what the files beside it declare, "english" among it. control: control tokens that no file names.
    Raises TokenizerError: a damaged file, one without <unk>, or no jieba.
    """
    with reading(path):
        lines = paths.read_bytes(path, limit=MAX_FILE).decode().split("\n")
        words = [line.strip() for line in (lines[:-1] if lines[-1] == "" else lines)]
        vocab = {word: number for number, word in enumerate(words)}
        hf.check_vocab(vocab)
        if _UNKNOWN not in vocab or _SPACE not in vocab:
            raise TokenizerError(f"the vocabulary has no {_UNKNOWN!r} or no {_SPACE!r}: it is not CPM-2's")
        jieba()
        named = {word: number for word, number in vocab.items() if _NAMED.fullmatch(word)} | dict(control)
        return CpmTokenizer(vocab, said.special(vocab | named, named), english=said.flag("english") is True)
