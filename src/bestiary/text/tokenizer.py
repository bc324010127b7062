"""Text to token ids and back, for every kind of tokenizer file, behind one protocol."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from ..files import paths
from . import choice, declared
from . import quirks as named_quirks
from .around import Around
from .boundary import MAX_FILE, reading
from .pipeline import Located
from .quirks import Quirks
from .stream import StreamDecoder


class Tokenizer(Protocol):
    """What turns text into ids and ids into text.

    vocab_size: one more than the largest id. bos, eos: the ids that begin and end a document, None where
    there are none. add_bos, add_eos: does the published tokenizer put them around a text by default; `encode`
    never does.
    around: what it puts around a text, and around two. control: spelling -> id of each token that stands for
    no text of its own (turns, BOS, EOS, padding, sentinels). mask: the id of the one that stands for a hidden
    token.
    """

    @property
    def vocab_size(self) -> int: ...
    @property
    def bos(self) -> int | None: ...
    @property
    def eos(self) -> int | None: ...
    @property
    def add_bos(self) -> bool: ...
    @property
    def add_eos(self) -> bool: ...
    @property
    def around(self) -> Around: ...
    @property
    def control(self) -> Mapping[str, int]: ...
    @property
    def mask(self) -> int | None: ...

    def encode(self, text: str, *, control: bool | Collection[str] = False) -> list[int]:
        """Return the ids of a text, without BOS or EOS.

        control: spellings of control tokens in the text become these tokens; of some, where they are named.
        Otherwise they are text like any other, and no text whatever gives a control token's id.
        Raises TokenizerError: half of a surrogate pair in the text, or more than 4 million characters.
        """

    def decode(self, ids: Iterable[int], *, control: bool = False, continues: bool = False) -> str:
        """Return the text of ids.

        control: show control tokens by their spelling, otherwise they add nothing. continues: the text goes
        on after another, so that a leading space counts; it belongs to the vocabulary's way of writing at a
        text's start. Ids without a token (the rows that models pad their vocabulary with) add nothing. Bytes
        that are no UTF-8 become U+FFFD, each as the published decoder has it.
        """

    def stream(self, *, control: bool = False, continues: bool = False) -> StreamDecoder:
        """Return a decoder for one id at a time; what it gives, joined, is `decode` of the ids."""

    def piece(self, token: int) -> bytes:
        """Return the bytes that a token adds inside a text, which may be half a character; or its name."""


@runtime_checkable
class Locates(Protocol):
    """A tokenizer that also tells where in a text its tokens stand."""

    def locate(self, text: str) -> list[Located]:
        """Return the tokens of a text, without BOS or EOS, with their places in it."""


def open_tokenizer(
    path: Path | str, *, control: Mapping[str, int] | None = None, quirks: str | Quirks | None = None
) -> Tokenizer:
    """Return the tokenizer of a model's folder, or of one file of the kinds named below.

    In a folder the first of these counts: tokenizer.json, a SentencePiece or tiktoken model, vocab.json with
    merges.txt, vocab.txt, CLIP's bpe_simple_vocab_16e6.txt.gz, a single .gguf. The files beside it
    (tokenizer_config.json and its kin) are read too.
    control: control tokens that the files do not name, spelling -> id.
    quirks: what the system published in code only, or its name in text/quirks; None is what the roster says
    of the repository, or else what the folder makes certain, if anything.
    Raises TokenizerError: no tokenizer there, a damaged one, or one with parts that are not known here;
    nothing is guessed. CheckpointError: a damaged .gguf file. RequestError: quirks of no such name.
    """
    file = choice.file(Path(path))
    if file.suffix == ".gguf":
        from . import gguf

        return gguf.open_file(file, control=dict(control or {}))
    said = declared.read(file.parent)
    found = named_quirks.find(quirks) if isinstance(quirks, str) else quirks
    found = named_quirks.of(file, said) if found is None else found
    declares = {token.content for token in said.added.values()}
    extra = {name: number for name, number in found.control.items() if name not in declares}
    tokenizer = _open(file, found.apply(said), extra | dict(control or {}), found)
    if found.characters is None:
        return tokenizer
    from .characters import ByCharacter

    return ByCharacter(tokenizer, found.characters)


def _open(file: Path, said: declared.Declared, control: Mapping[str, int], quirks: Quirks) -> Tokenizer:
    if file.name in choice.MERGES:
        from . import bpe

        return bpe.load(file, choice.MERGES[file.name], said, control=control)
    if file.suffix == ".json":
        from . import hf

        return hf.load(file, said, control=control)
    if file.name.endswith(".txt.gz"):
        from . import clip

        return clip.load(file, said, control=control)
    if file.suffix == ".txt" and said.class_name == "EncDecTokenizer":
        from . import cpm

        return cpm.load(file, said, control=control)
    if file.suffix == ".txt":
        from . import wordpiece

        return wordpiece.load(file, said, control=control)
    return _model_file(file, said, control, quirks)


def _model_file(file: Path, said: declared.Declared, control: Mapping[str, int], quirks: Quirks) -> Tokenizer:
    """Return the tokenizer of a .model or .tiktoken file; Llama 3's is the second under the first's name."""
    with reading(file):
        data = paths.read_bytes(file, limit=MAX_FILE)
    from . import icetk, sentencepiece, tiktoken

    if quirks.icetk is not None:
        return icetk.load(file, data, said, quirks.icetk, control=control)
    if file.suffix == ".tiktoken" or tiktoken.looks_like(data):
        return tiktoken.load(file, data, said, control=control)
    return sentencepiece.load(file, data, said, control=control)
