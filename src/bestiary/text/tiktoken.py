"""Vocabularies in tiktoken's format, a base64 token and its rank a line, by the `tiktoken` library.

Such a file holds neither the regular expression that splits words nor the special tokens: the code published
with it does. Both come from a table of known systems here, and a file of no known system is refused.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import tiktoken

from ..errors import TokenizerError
from . import patterns, stream
from .boundary import checked, guarded, reading
from .declared import Declared
from .pipeline import Special
from .sentencepiece import any_of

_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} [0-9]{1,9}")
_MOST_TOKENS = 4 << 20

# The engine of tiktoken's regular expressions keeps a stack entry for each character it may give back, a
# million at most, and panics beyond (openai/tiktoken#15). Only white space does that in the patterns known
# here.
_LONG_SPACE = re.compile(r"\s{200000}")


@dataclass(frozen=True)
class System:
    """What the published code adds to a file. names: the special tokens, whose ids follow the last rank."""

    pattern: str
    names: tuple[str, ...]
    bos: str | None = None
    eos: str | None = None
    nfc: bool = False


def _llama3_names() -> tuple[str, ...]:
    reserved = [f"<|reserved_special_token_{i}|>" for i in range(251)]
    text = ["<|begin_of_text|>", "<|end_of_text|>", *reserved[:4]]
    turns = ["<|start_header_id|>", "<|end_header_id|>", reserved[4], "<|eot_id|>"]
    return (*text, *turns, *reserved[5:])


_QWEN = System(
    patterns.QWEN2_REGEX,
    ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205))),
    eos="<|endoftext|>",
    nfc=True,
)
_LLAMA3 = System(patterns.LLAMA3_REGEX, _llama3_names(), bos="<|begin_of_text|>", eos="<|end_of_text|>")

_BY_CLASS = {"QWenTokenizer": _QWEN}
_BY_SHA256 = {
    "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186": _QWEN,
    "82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55": _LLAMA3,
}


def looks_like(data: bytes) -> bool:
    """Tell whether a file's first line is a base64 token and its rank."""
    return _LINE.match(data) is not None


def load(path: Path, data: bytes, said: Declared, *, control: Mapping[str, int]) -> TiktokenTokenizer:
    """Return the tokenizer of a tiktoken file's bytes.

    said: what the files beside it declare. control: control tokens that no file names.
    Raises TokenizerError: a damaged file, or one of no system that is known here.
    """
    with reading(path):
        return _build(data, said, control)


def _build(data: bytes, said: Declared, control: Mapping[str, int]) -> TiktokenTokenizer:
    system = _BY_CLASS.get(said.class_name or "") or _BY_SHA256.get(hashlib.sha256(data).hexdigest())
    if system is None:
        raise TokenizerError(
            "this tiktoken vocabulary is that of no system known here, so neither how it splits "
            "words nor its special tokens are known. Known: Llama 3's, and the classes "
            f"{', '.join(_BY_CLASS)}. Use the tokenizer.json of the same model"
        )
    ranks = read(data)
    names = {name: len(ranks) + i for i, name in enumerate(system.names)}
    marked = {token.content: token.id for token in said.added.values()}
    # A later file may give a reserved id another name (Llama 3.1's <|eom_id|>): the old name is text then.
    names = {name: number for name, number in names.items() if number not in set(marked.values())}
    defaults = {f"{end}_token": name for end in ("bos", "eos") if (name := getattr(system, end))}
    controls = names | marked | dict(control)
    special = said.special(controls, controls, add_bos=system.bos is not None, defaults=defaults)
    return TiktokenTokenizer(ranks, system, special)


def read(data: bytes) -> dict[bytes, int]:
    """Return token -> rank.

    Raises TokenizerError: a line that is no base64 and number, a token or rank that is there twice, ranks
    that are not 0, 1, 2 ..., or one of the 256 bytes missing.
    """
    lines = data.split(b"\n")
    ranks: dict[bytes, int] = {}
    if len(lines) > _MOST_TOKENS:
        raise TokenizerError(f"the vocabulary has more than {_MOST_TOKENS:,} lines")
    for number, line in enumerate(lines, 1):
        line = line.removesuffix(b"\r")
        if not line:
            continue
        if not _LINE.fullmatch(line):
            raise TokenizerError(f"line {number}, {line[:60]!r}, is no base64 token and its rank")
        token, rank = line.split(b" ")
        try:
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except binascii.Error as error:
            raise TokenizerError(f"line {number}, {line[:60]!r}, is no base64: {error}") from error
    wrong = sorted(ranks.values()) != list(range(len(ranks))) or len(ranks) != sum(map(bool, lines))
    if wrong or not all(bytes([byte]) in ranks for byte in range(256)):
        raise TokenizerError(
            "the ranks are not 0, 1, 2 ... without a gap, or a token or one of the 256 bytes is missing"
        )
    return ranks


class TiktokenTokenizer:
    """A Tokenizer (see tokenizer.py) over the `tiktoken` library. special.control: ids beyond the ranks."""

    def __init__(self, ranks: dict[bytes, int], system: System, special: Special) -> None:
        self.bos, self.eos = special.bos, special.eos
        self.add_bos, self.add_eos = special.add_bos, special.add_eos
        self.mask, self.around = special.mask, special.wrapping
        if taken := [name for name, number in special.control.items() if number < len(ranks)]:
            raise TokenizerError(f"control token {taken[0][:80]!r} has the id of an ordinary token")
        self.control: Mapping[str, int] = dict(special.control)
        self._pieces = {rank: token for token, rank in ranks.items()}
        self._spellings = {number: name.encode() for name, number in self.control.items()}
        self.vocab_size = max([len(ranks), *(number + 1 for number in self._spellings)])
        self.ranks, self.pattern = ranks, system.pattern
        self._normal: Callable[[str], str] = (
            functools.partial(unicodedata.normalize, "NFC") if system.nfc else str
        )
        self._marks = any_of(self.control)
        self._library = self._encoding(system.pattern)

    def _encoding(self, pattern: str) -> tiktoken.Encoding:
        with guarded("the tiktoken vocabulary cannot be used"):
            return tiktoken.Encoding(
                "bestiary", pat_str=pattern, mergeable_ranks=self.ranks, special_tokens={}
            )

    @functools.cached_property
    def _whole(self) -> tiktoken.Encoding:
        """The same vocabulary, taking each text as one word."""
        return self._encoding(r"(?s:.+)")

    def encode(self, text: str, *, control: bool | Collection[str] = False) -> list[int]:
        """Return the ids of a text; see `Tokenizer.encode`."""
        text = self._normal(checked(text))
        with guarded("the text cannot be encoded"):
            marks = self._marks if control is True else any_of(self.control.keys() & set(control or ()))
            if marks is None:
                return self._words(text)
            return [one for ids in self._segments(text, marks) for one in ids]

    def _segments(self, text: str, marks: re.Pattern[str]) -> Iterator[list[int]]:
        at = 0
        for found in marks.finditer(text):
            yield self._words(text[at : found.start()])
            yield [self.control[found[0]]]
            at = found.end()
        yield self._words(text[at:])

    def _words(self, text: str) -> list[int]:
        if not _LONG_SPACE.search(text):
            return self._library.encode_ordinary(text)
        from tokenizers import Regex, pre_tokenizers

        # The other library's engine splits the same words by the same pattern, and has no such limit.
        words = pre_tokenizers.Split(Regex(self.pattern), "isolated").pre_tokenize_str(text)
        return [one for word, _ in words for one in self._whole.encode_ordinary(word)]

    def decode(self, ids: Iterable[int], *, control: bool = False, continues: bool = False) -> str:
        """Return the text of ids; see `Tokenizer.decode`."""
        return stream.decode(self.stream(control=control, continues=continues), ids)

    def stream(self, *, control: bool = False, continues: bool = False) -> stream.StreamDecoder:
        """Return a decoder that takes one id at a time; see `Tokenizer.stream`."""
        return stream.Bytes(self.piece if control else lambda token: self._pieces.get(token, b""))

    def piece(self, token: int) -> bytes:
        """Return the bytes that a token adds inside a text; see `Tokenizer.piece`."""
        return self._pieces.get(token) or self._spellings.get(token, b"")
