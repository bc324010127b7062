"""SentencePiece models (BPE, unigram, byte fallback), from .model files and from GGUF, by `sentencepiece`.

Control pieces are never found in a text by the library. Pieces that the folder makes control tokens though
the model holds them as "user-defined", which it finds whole in any text (Yi's `<|im_start|>`), become control
pieces here, so that no text can give their ids, under whatever name.

What follows a control token begins with a dummy prefix "▁" of its own, as in transformers' LlamaTokenizer and
in
llama.cpp, unless tokenizer_config.json says `"legacy": false` (huggingface/transformers#24565).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import sentencepiece

from ..errors import TokenizerError
from . import modelproto, stream
from .boundary import checked, guarded, reading
from .declared import Declared
from .modelproto import BYTE, CONTROL, USER_DEFINED, ModelProto
from .pipeline import Added, Special

# tokenizer_class -> does it add BOS and EOS when the folder does not say. These encode as the library does;
# a model that rewrites the text first (ChatGLM-6B) has a file of its own, icetk.py.
_CLASSES = {
    **dict.fromkeys(
        "Llama LlamaFast Gemma GemmaFast Yi Baichuan InternLM InternLM2 Skywork Orion BlueLM".split(),
        (True, False),
    ),
    **dict.fromkeys("T5 T5Fast".split(), (False, True)),
    "ChatGLM2": (False, False),
}


class SentencePieceTokenizer:
    """A Tokenizer (see tokenizer.py) over the `sentencepiece` library.

    special.control and added may name pieces of the model, rename them by their ids, or name tokens beyond
    it.
    added: tokens beside the control tokens that are found whole in any text. legacy: see the module.
    """

    def __init__(
        self, proto: ModelProto, special: Special, *, added: Iterable[Added] = (), legacy: bool = True
    ) -> None:
        proto.check()
        unknown = proto.pieces[proto.unknown]
        self.control: Mapping[str, int] = {
            name: number for name, number in special.control.items() if number != proto.unknown
        }
        self.bos, self.eos = special.bos, special.eos
        self.add_bos, self.add_eos = special.add_bos, special.add_eos
        self.mask, self.around = special.mask, special.wrapping
        pieces = {piece: number for number, piece in enumerate(proto.pieces)}
        for name, number in self.control.items():
            if pieces.get(name, number) != number:
                raise TokenizerError(f"control token {name[:80]!r} has id {number}, and {pieces[name]}")
        self._controls = frozenset(self.control.values())
        types = [CONTROL if i in self._controls else kind for i, kind in enumerate(proto.types)]
        self._proto, self.legacy = replace(proto, types=types), legacy
        self._proto.check()
        self._tokens = {token.content: token for token in added if token.id != proto.unknown}
        names = {number: name for name, number in self.control.items()}
        names |= {token.id: token.content for token in self._tokens.values()}
        self._names: Mapping[int, str] = names
        self.vocab_size = max(len(proto.pieces), *(number + 1 for number in names), 0)
        self._outside = outside = [
            one.content
            for one in self._tokens.values()
            if one.id not in self._controls and (one.id >= len(types) or one.content != proto.pieces[one.id])
        ]
        self._whole = any_of(outside)
        self._marks = any_of([*self.control, *outside, unknown])
        self._ids = (
            dict(self.control) | {name: self._tokens[name].id for name in outside} | {unknown: proto.unknown}
        )
        self._library = _library(self._proto)

    @property
    def model(self) -> ModelProto:
        """The SentencePiece model, its control pieces marked."""
        return self._proto

    @property
    def names(self) -> Mapping[int, str]:
        """The spellings of control tokens and of added ones, which may lie beyond the model's pieces."""
        return self._names

    @functools.cached_property
    def _unprefixed(self) -> sentencepiece.SentencePieceProcessor:
        return _library(replace(self._proto, add_dummy_prefix=False))

    def encode(self, text: str, *, control: bool | Collection[str] = False) -> list[int]:
        """Return the ids of a text; see `Tokenizer.encode`."""
        checked(text)
        marks = self._marks if control is True else self._whole
        if control is not True and control:
            marks = any_of({*self._outside, *self._ids.keys() & set(control)})
        with guarded("the text cannot be encoded"):
            if marks is None:
                return self._words(text)
            return [one for ids in self._segments(text, marks) for one in ids]

    def _segments(self, text: str, marks: re.Pattern[str]) -> Iterator[list[int]]:
        """Yield the ids of a text's parts: the tokens that are found whole, and what lies between them."""
        at = 0
        strip = False
        for found in marks.finditer(text):
            token = self._tokens.get(found[0])
            before = text[at : found.start()]
            before = before.lstrip() if strip else before
            before = before.rstrip() if token is not None and token.lstrip else before
            yield self._words(before, first=at == 0)
            yield [self._ids[found[0]]]
            at, strip = found.end(), token is not None and token.rstrip
        yield self._words(text[at:].lstrip() if strip else text[at:], first=at == 0)

    def _words(self, text: str, *, first: bool = True) -> list[int]:
        if not text:
            return []
        if first or self.legacy:
            ids: list[int] = self._library.encode(text)
            return ids
        # transformers' LlamaTokenizer with legacy=False: a space at the start is kept by hiding it behind a
        # word.
        cover = self._proto.pieces[self._proto.unknown] if text.startswith((stream.SPACE, " ")) else ""
        ids = self._unprefixed.encode(cover + text)
        return ids[len(self._unprefixed.encode(cover)) :] if cover else ids

    def decode(self, ids: Iterable[int], *, control: bool = False, continues: bool = False) -> str:
        """Return the text of ids; see `Tokenizer.decode`."""
        return stream.decode(self.stream(control=control, continues=continues), ids)

    def stream(self, *, control: bool = False, continues: bool = False) -> stream.StreamDecoder:
        """Return a decoder that takes one id at a time; see `Tokenizer.stream`."""
        piece = self._shown if control else self._spoken
        collapse = self._proto.remove_extra_whitespaces and not continues
        prefixed = self._proto.add_dummy_prefix and not continues
        return stream.SentencePiece(piece, drop_first=prefixed, drop_all=collapse)

    def _spoken(self, token: int) -> str | int | None:
        silent = token in self._controls or (
            token < len(self._proto.types) and self._proto.types[token] == CONTROL
        )
        return None if silent else self._shown(token)

    def _shown(self, token: int) -> str | int | None:
        """Return what a token adds to a text: its characters, or the number of its byte."""
        if (name := self._names.get(token)) is not None:
            return name
        if not 0 <= token < len(self._proto.pieces):
            return None
        piece, kind = self._proto.pieces[token], self._proto.types[token]
        if kind == BYTE:
            return int(piece[3:5], 16)
        return self._proto.unk_surface if token == self._proto.unknown else piece

    def piece(self, token: int) -> bytes:
        """Return the bytes that a token adds inside a text; see `Tokenizer.piece`."""
        shown = self._proto.pieces[token] if token == self._proto.unknown else self._shown(token)
        if isinstance(shown, int):
            return bytes([shown])
        return (shown or "").replace(stream.SPACE, " ").encode()


def any_of(spellings: Iterable[str]) -> re.Pattern[str] | None:
    """Return what finds the leftmost longest of some strings, None of none."""
    ordered = sorted(spellings, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None


def _library(proto: ModelProto) -> sentencepiece.SentencePieceProcessor:
    with guarded("the SentencePiece model cannot be used"):
        sentencepiece.SetMinLogLevel(2)  # errors alone: what it says of odd pieces goes to whoever trains
        library = sentencepiece.SentencePieceProcessor()
        library.LoadFromSerializedProto(proto.write())
        return library


def load(path: Path, data: bytes, said: Declared, *, control: Mapping[str, int]) -> SentencePieceTokenizer:
    """Return the tokenizer of a .model file's bytes.

    said: what the files beside it declare. control: control tokens that no file names.
    Raises TokenizerError: no SentencePiece model, or a tokenizer_class whose way with a text is not known
    here.
    """
    with reading(path):
        return _build(modelproto.read(data), said, control)


def _build(proto: ModelProto, said: Declared, control: Mapping[str, int]) -> SentencePieceTokenizer:
    native = said.class_name is None
    if not native and _stem(said) not in _CLASSES:
        raise TokenizerError(
            f"tokenizer_config.json names the class {str(said.class_name)[:80]!r}, which may change "
            "a text before SentencePiece sees it and is not known here; known: "
            f"{', '.join(sorted(_CLASSES))}, each with Tokenizer at its end"
        )
    # A bare .model is how LLaMA and Mistral are published, which add BOS; others give theirs other names.
    adds = (proto.bos_piece == "<s>", False) if native else _CLASSES[_stem(said)]
    pieces = dict(zip(proto.pieces, range(len(proto.pieces)), strict=True))
    added = list(said.added.values())
    if _stem(said).startswith("T5"):
        added += _sentinels(said, pieces)
    vocab = pieces | {token.content: token.id for token in added} | dict(control)
    ends = {"bos_token": proto.bos_piece, "eos_token": proto.eos_piece}
    ends |= {"pad_token": "<pad>"} if _stem(said).startswith("T5") else {}
    # transformers' classes know the special tokens that are declared, not every control piece of the model.
    kinds = list(zip(proto.pieces, proto.types, strict=True))
    special = said.special(
        vocab,
        {name: pieces[name] for name, kind in kinds if kind == CONTROL and native}
        | {token.content: token.id for token in added if token.special}
        | dict(control),
        add_bos=adds[0],
        add_eos=adds[1],
        defaults={key: name for key, name in ends.items() if name in pieces},
        whole=[name for name, kind in kinds if kind == USER_DEFINED],
    )
    return SentencePieceTokenizer(proto, special, added=added, legacy=said.flag("legacy") is not False)


def _sentinels(said: Declared, pieces: Mapping[str, int]) -> list[Added]:
    """Return T5's "<extra_id_0>" ..., which its class numbers downwards after the model's own pieces."""
    count = said.options.get("extra_ids", 100)
    if type(count) is not int or not 0 <= count <= 10_000:
        raise TokenizerError(f"tokenizer_config.json: extra_ids is {str(count)[:80]!r}, not 0 to 10,000")
    known = {*pieces, *(token.content for token in said.added.values())}
    names = [f"<extra_id_{i}>" for i in range(count)]
    last = len(pieces) + count - 1
    return [
        Added(last - i, name, lstrip=True, rstrip=True) for i, name in enumerate(names) if name not in known
    ]


def _stem(said: Declared) -> str:
    return str(said.class_name).replace("Tokenizer", "", 1)
