"""CLIP's tokenizer of openai/CLIP: bpe_simple_vocab_16e6.txt.gz, which holds merges alone.

Its code (clip/simple_tokenizer.py) mends a text with ftfy, reads HTML's entities, folds white space and
lowers letters, so what is decoded is not what was encoded. Its decoder puts a space after every word, the
last too. A folder with a tokenizer.json needs none of that: it says itself what is done to a text.
"""

from __future__ import annotations

import html
import importlib
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from ..errors import TokenizerError
from ..files import paths
from . import hf, patterns, stream
from .around import Around
from .boundary import MAX_FILE, checked, guarded, reading
from .declared import Declared
from .pipeline import Model, Pipeline, PipelineTokenizer, Special

_END = "</w>"
_MERGES = 49152 - 256 - 2  # of the file's 262,144 these are used
_ENDS = ("<|startoftext|>", "<|endoftext|>")
_SPACES = re.compile(r"\s+")
_MOST_BYTES = 16 << 20  # of the unpacked file; OpenAI's has 3 MB
_WORDS = {
    "type": "Split",
    "pattern": {"Regex": patterns.CLIP_REGEX},
    "behavior": "Removed",
    "invert": True,
}


class ClipTokenizer:
    """A Tokenizer (see tokenizer.py) that mends a text before another encodes it. mend: ftfy's fix_text."""

    def __init__(self, pipeline: Pipeline, special: Special, mend: Callable[[str], str]) -> None:
        self._tokenizer, self._mend = PipelineTokenizer(pipeline, special), mend
        self.vocab_size = self._tokenizer.vocab_size
        self.bos, self.eos, self.mask = special.bos, special.eos, special.mask
        self.add_bos, self.add_eos = special.add_bos, special.add_eos
        self.around: Around = special.wrapping
        self.control: Mapping[str, int] = special.control

    def encode(self, text: str, *, control: bool | Collection[str] = False) -> list[int]:
        """Return the ids of a text; see `Tokenizer.encode`."""
        with guarded("the text cannot be encoded"):
            text = html.unescape(html.unescape(self._mend(checked(text))))
        return self._tokenizer.encode(_SPACES.sub(" ", text.strip()).strip().lower(), control=control)

    def decode(self, ids: Iterable[int], *, control: bool = False, continues: bool = False) -> str:
        """Return the text of ids; see `Tokenizer.decode`."""
        return self._tokenizer.decode(ids, control=control, continues=continues)

    def stream(self, *, control: bool = False, continues: bool = False) -> stream.StreamDecoder:
        """Return a decoder that takes one id at a time; see `Tokenizer.stream`."""
        return self._tokenizer.stream(control=control, continues=continues)

    def piece(self, token: int) -> bytes:
        """Return the bytes that a token adds inside a text; see `Tokenizer.piece`."""
        return self._tokenizer.piece(token)


def load(path: Path, said: Declared, *, control: Mapping[str, int]) -> ClipTokenizer:
    """Return the tokenizer of a bpe_simple_vocab_16e6.txt.gz.

    said: what the files beside it declare. control: control tokens that no file names.
    Raises TokenizerError: a damaged file, or no ftfy.
    """
    with reading(path):
        lines = _unpacked(path).decode().split("\n")
        merges = hf.pairs([line for line in lines[1 : _MERGES + 1] if line])
        bytes_ = list(stream.BYTE_OF)
        tokens = [*bytes_, *(one + _END for one in bytes_), *map("".join, merges)]
        vocab = {token: number for number, token in enumerate([*tokens, *_ENDS])}
        if len(vocab) != len(tokens) + len(_ENDS):
            raise TokenizerError("two merges make one token: the file is damaged. Download it again")
        names = {name: vocab.pop(name) for name in _ENDS} | dict(control)
        ends = dict(zip(("bos_token", "eos_token"), _ENDS, strict=True))
        special = said.special(vocab | names, names, add_bos=True, add_eos=True, defaults=ends)
        pipeline = Pipeline(
            model=Model("BPE", vocab, merges=merges, options={"end_of_word_suffix": _END}),
            steps=lambda continues: [stream.ByteLevel(), stream.Replace(_END, " ")],
            pre_tokenizer=patterns.sequence(_WORDS, patterns.byte_level()),
        )
        return ClipTokenizer(pipeline, special, _mend())


def _unpacked(path: Path) -> bytes:
    data = paths.read_bytes(path, limit=MAX_FILE)
    try:
        gzip = zlib.decompressobj(wbits=31)
        unpacked = gzip.decompress(data, _MOST_BYTES)
    except zlib.error as error:
        raise TokenizerError(f"the file is no gzip: {error}. Download it again") from error
    if len(unpacked) == _MOST_BYTES:
        raise TokenizerError(f"the file unpacks to more than {_MOST_BYTES:,} bytes: it is not OpenAI's")
    if not gzip.eof:
        raise TokenizerError("the file is cut off. Download it again")
    return unpacked


def _mend() -> Callable[[str], str]:
    try:
        mend: Callable[[str], str] = importlib.import_module("ftfy").fix_text
    except ImportError as error:
        raise TokenizerError(
            "OpenAI's CLIP mends texts with ftfy, which is not installed. Type: pip install ftfy, or use the "
            "tokenizer.json of the same model"
        ) from error
    return mend
