"""The tokenizers embedded in GGUF files: byte-level BPE, SentencePiece, T5's unigram and BERT's WordPiece.

`tokenizer.ggml.model` names the kind, as llama.cpp's src/llama-vocab.cpp reads it. A byte-level BPE also
needs `tokenizer.ggml.pre`, the name of how words are split; a file without it, or with a name that is not in
the table of
patterns.py, is refused: llama.cpp would go on with a default that fits few models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import TokenizerError
from . import bpe, hf, patterns, wordpiece
from .declared import delimits
from .modelproto import BPE, BYTE, CONTROL, NORMAL, UNIGRAM, UNKNOWN, UNUSED, USER_DEFINED, ModelProto
from .pipeline import Added, Model, PipelineTokenizer, Special
from .sentencepiece import SentencePieceTokenizer
from .stream import SPACE

_PREFIX = "tokenizer.ggml."
# The keys of ids whose tokens stand for no text. `seperator` is how the format spells it.
_NAMED = ("bos", "eos", "eot", "eom", "padding", "seperator", "separator", "cls", "mask")


def open_file(
    path: Path, *, control: Mapping[str, int] | None = None
) -> PipelineTokenizer | SentencePieceTokenizer:
    """Return the tokenizer of a .gguf file; see `from_metadata`.

    Raises CheckpointError: a damaged file.
    """
    from ..files import open_checkpoint

    with open_checkpoint(path) as checkpoint:
        try:
            return from_metadata(checkpoint.metadata, control=control)
        except TokenizerError as error:
            raise TokenizerError(f"{path}: {error}") from error


def from_metadata(
    metadata: Mapping[str, object], *, control: Mapping[str, int] | None = None
) -> PipelineTokenizer | SentencePieceTokenizer:
    """Return the tokenizer in a GGUF file's keys.

    control: control tokens that the file does not mark as such, spelling -> id.
    Raises TokenizerError: no tokenizer, a kind or a pre-tokenizer that is not known, or arrays that do not
    fit.
    """
    vocabulary = _Vocabulary(metadata, dict(control or {}))
    match vocabulary.text("model"):
        case "gpt2":
            return _byte_level(vocabulary)
        case "llama":
            return _sentencepiece(vocabulary)
        case "t5":
            return _unigram(vocabulary)
        case "bert":
            return _bert(vocabulary)
        case kind:
            raise TokenizerError(f"{_PREFIX}model is {str(kind)[:80]!r}; known: gpt2, llama, t5, bert")


class _Vocabulary:
    """The keys of a GGUF file's tokenizer, each checked as it is read."""

    def __init__(self, metadata: Mapping[str, object], control: Mapping[str, int]) -> None:
        self._metadata, self._control = metadata, control
        self.tokens: list[str] = self.array("tokens", str) or []
        self.types: list[int] = self.array("token_type", int, len(self.tokens)) or [NORMAL] * len(self.tokens)
        self._marked = [number for number, kind in enumerate(self.types) if kind != NORMAL]
        if not self.tokens or not set(self.types) <= set(range(NORMAL, BYTE + 1)):
            raise TokenizerError(
                f"{_PREFIX}tokens is empty, or {_PREFIX}token_type holds other numbers than 1 to 6"
            )

    def _value(self, key: str, kind: type) -> Any:
        value = self._metadata.get(key)
        if value is None or (isinstance(value, kind) and not (kind is int and isinstance(value, bool))):
            return value
        raise TokenizerError(f"{key} is {str(value)[:80]!r}, not of type {kind.__name__}")

    def text(self, name: str) -> str | None:
        value: str | None = self._value(_PREFIX + name, str)
        return value

    def flag(self, name: str, default: bool) -> bool:
        value: bool | None = self._value(_PREFIX + name, bool)
        return default if value is None else value

    def token(self, name: str, default: int | None = None) -> int | None:
        """Return the id in a key such as `bos_token_id`; where it is absent the default, if there is such."""
        key = f"{_PREFIX}{name}_token_id"
        value: int | None = self._value(key, int)
        if value is not None and not 0 <= value < len(self.tokens):
            raise TokenizerError(f"{key} is {value}, but there are {len(self.tokens)} tokens")
        return default if value is None and default is not None and default < len(self.tokens) else value

    def array(self, name: str, kind: type, length: int | None = None) -> list[Any] | None:
        value = self._metadata.get(_PREFIX + name)
        if value is None:
            return None
        if isinstance(value, str | bytes) or not isinstance(value, Iterable):
            raise TokenizerError(f"{_PREFIX}{name} is no array")
        values = list(value)
        if not set(map(type, values)) <= {kind} or length not in (None, len(values)):
            raise TokenizerError(
                f"{_PREFIX}{name} has {len(values)} items, not {length} of type {kind.__name__}"
            )
        return values

    def scores(self) -> list[float]:
        values = self.array("scores", float, len(self.tokens))
        if values is None:
            raise TokenizerError(f"{_PREFIX}scores is missing")
        return values

    def of(self, *kinds: int) -> list[int]:
        """Return the ids of some types other than NORMAL."""
        return [number for number in self._marked if self.types[number] in kinds]

    def special(
        self, *, add_bos: bool, add_eos: bool = False, bos: int | None = None, eos: int | None = None
    ) -> Special:
        """Return what the tokens are for. The arguments say what holds where the file does not."""
        bos, eos = self.token("bos", bos), self.token("eos", eos)
        template = self._value("tokenizer.chat_template", str) or ""
        numbers = {number for name in _NAMED if (number := self.token(name)) is not None}
        numbers |= {number for number in (bos, eos) if number is not None} | set(self.of(CONTROL))
        numbers |= {number for number in self.of(USER_DEFINED) if delimits(self.tokens[number], template)}
        numbers -= set(self.of(UNKNOWN))
        return Special(
            bos=bos,
            eos=eos,
            add_bos=bos is not None and self.flag("add_bos_token", add_bos),
            add_eos=eos is not None and self.flag("add_eos_token", add_eos),
            control={self.tokens[number]: number for number in numbers} | dict(self._control),
            mask=self.token("mask"),
        )


def _byte_level(vocabulary: _Vocabulary) -> PipelineTokenizer:
    name = vocabulary.text("pre")
    if name not in patterns.GGUF:
        known = ", ".join(sorted(patterns.GGUF))
        raise TokenizerError(
            f"{_PREFIX}pre is {'missing' if name is None else repr(name[:80])}, so how words are split is "
            f"not known. Convert the model again with a newer convert_hf_to_gguf.py. Known: {known}"
        )
    named = patterns.GGUF[name]
    vocab = dict(zip(vocabulary.tokens, range(len(vocabulary.tokens)), strict=True))
    if len(vocab) != len(vocabulary.tokens):
        raise TokenizerError(f"{_PREFIX}tokens has a token twice")
    for number in vocabulary.of(UNUSED):
        del vocab[vocabulary.tokens[number]]
    vocab.pop("", None)
    model = Model(
        "BPE",
        vocab,
        merges=hf.pairs(vocabulary.array("merges", str) or []),
        options={"ignore_merges": named.ignore_merges},
    )
    special = vocabulary.special(add_bos=named.add_bos)
    whole = [
        Added(number, vocabulary.tokens[number], special=vocabulary.types[number] == CONTROL)
        for number in vocabulary.of(CONTROL, USER_DEFINED, UNKNOWN)
        if vocabulary.tokens[number]
    ]
    return bpe.byte_level(model, named.pre_tokenizer, named.normalizer, special, tuple(whole))


def _proto(vocabulary: _Vocabulary, algorithm: int, *, unknown: int, prefix: bool) -> ModelProto:
    types = list(vocabulary.types)
    if UNKNOWN not in types and (number := vocabulary.token("unknown", unknown)) is not None:
        types[number] = UNKNOWN
    charsmap = vocabulary.array("precompiled_charsmap", int) or []
    return ModelProto(
        pieces=vocabulary.tokens,
        scores=vocabulary.scores(),
        types=types,
        algorithm=algorithm,
        byte_fallback=BYTE in types,
        charsmap=bytes(byte & 255 for byte in charsmap),
        add_dummy_prefix=vocabulary.flag("add_space_prefix", prefix),
        remove_extra_whitespaces=vocabulary.flag("remove_extra_whitespaces", False),
    )


def _sentencepiece(vocabulary: _Vocabulary) -> SentencePieceTokenizer:
    proto = _proto(vocabulary, BPE, unknown=0, prefix=True)
    return SentencePieceTokenizer(proto, vocabulary.special(add_bos=True, bos=1, eos=2))


def _unigram(vocabulary: _Vocabulary) -> SentencePieceTokenizer:
    proto = _proto(vocabulary, UNIGRAM, unknown=2, prefix=False)
    return SentencePieceTokenizer(proto, vocabulary.special(add_bos=False, add_eos=True, eos=1))


def _bert(vocabulary: _Vocabulary) -> PipelineTokenizer:
    """Return a WordPiece tokenizer. GGUF marks where words start ("▁word"), vocab.txt where not ("##s")."""
    words = [_vocab_txt(token) for token in vocabulary.tokens]
    vocab = {word: number for number, word in enumerate(words)}
    unknown = vocabulary.token("unknown", 100)
    if unknown is None:
        raise TokenizerError(f"{_PREFIX}unknown_token_id is missing")
    lowercase = vocabulary.flag("normalizer.lowercase", True)
    special = vocabulary.special(add_bos=True, add_eos=True, bos=vocabulary.token("cls", 101))
    if vocabulary.token("eos") is None:
        special = vocabulary.special(
            add_bos=True,
            add_eos=True,
            bos=special.bos,
            eos=vocabulary.token("seperator", 102),
        )
    return wordpiece.build(
        vocab,
        special,
        unk=words[unknown],
        lowercase=lowercase,
        strip_accents=vocabulary.flag("normalizer.strip_accents", lowercase),
    )


def _vocab_txt(token: str) -> str:
    if token.startswith(SPACE):
        return token.removeprefix(SPACE)
    return token if token.startswith("[") and token.endswith("]") else f"##{token}"
