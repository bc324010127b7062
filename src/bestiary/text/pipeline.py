"""Tokenizers built from the parts that the `tokenizers` library knows: BPE, Unigram and WordPiece.

tokenizer.json, GGUF's embedded vocabularies, vocab.json with merges.txt and vocab.txt all come to one
Pipeline, in tokenizer.json's own words, and are built in memory here. Several library tokenizers serve one
pipeline: one does not know the control tokens at all, so no text whatever can give their ids, one knows all,
and others those that are asked for, as the one that hides a word.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import tokenizers
from tokenizers import models

from ..errors import TokenizerError
from . import stream
from .around import Around
from .boundary import checked, guarded

Json = dict[str, Any]


@dataclass(frozen=True)
class Added:
    """A token that is looked for in the text before the model sees it (tokenizer.json's added_tokens)."""

    id: int
    content: str
    special: bool = True
    normalized: bool = False
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


@dataclass(frozen=True)
class Special:
    """What a tokenizer's tokens are for. control: spelling -> id; text never gives one of these ids.

    mask: the token that stands for a hidden one. around: what stands around a text, where it is more than BOS
    and EOS.
    """

    bos: int | None = None
    eos: int | None = None
    add_bos: bool = False
    add_eos: bool = False
    control: Mapping[str, int] = field(default_factory=dict)
    mask: int | None = None
    around: Around | None = None

    @property
    def wrapping(self) -> Around:
        """What stands around a text, and around two."""
        ends = (self.bos if self.add_bos else None, self.eos if self.add_eos else None)
        return self.around or Around.plain(*ends)


@dataclass(frozen=True)
class Model:
    """The vocabulary and its rule. kind: BPE, Unigram or WordPiece.

    scores: Unigram's, in the order of the ids. unk: the spelling of the token for what cannot be spelt.
    """

    kind: str
    vocab: dict[str, int]
    merges: list[tuple[str, str]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    unk: str | None = None
    options: Json = field(default_factory=dict)

    def build(self) -> models.Model:
        """Return the library's model.

        Raises TokenizerError: a merge makes a token that is not in the vocabulary (the library panics).
        """
        if self.kind == "BPE":
            prefix = len(self.options.get("continuing_subword_prefix") or "")
            made: Iterable[str] = map("".join, self.merges)
            if prefix:
                made = (left + right[prefix:] for left, right in self.merges)
            if unknown := set(made) - self.vocab.keys():
                raise TokenizerError(f"a merge makes {min(unknown)[:80]!r}, which is not in the vocabulary")
            return models.BPE(self.vocab, self.merges, unk_token=self.unk, **self.options)
        if self.kind == "WordPiece":
            return models.WordPiece(self.vocab, unk_token=self.unk or "", **self.options)
        pieces = list(zip(self.vocab, self.scores, strict=True))
        unk = None if self.unk is None else self.vocab[self.unk]
        return models.Unigram(pieces, unk, self.options.get("byte_fallback", False))

    def gives(self, spellings: Collection[str]) -> bool:
        """Tell whether the model itself could make one of these tokens out of text."""
        chosen = frozenset(spellings).intersection(self.vocab)
        whole_words = ("ignore_merges", "continuing_subword_prefix", "end_of_word_suffix")
        if self.kind != "BPE" or any(self.options.get(name) for name in whole_words):
            return bool(chosen)
        if any(len(one) == 1 or stream.BYTE.fullmatch(one) for one in chosen):
            return True
        merges = set(self.merges)
        return any((one[:at], one[at:]) in merges for one in chosen for at in range(1, len(one)))

    def without(self, spellings: Collection[str]) -> Model:
        """Return the model that cannot make these tokens; all other tokens keep their ids and ranks."""
        if self.kind == "Unigram":
            # Ids are positions here, so the pieces stay, under a name that no text can hold.
            hidden = f"\0{secrets.token_hex(16)}"
            names = [f"{hidden}{i}" if name in spellings else name for i, name in enumerate(self.vocab)]
            return replace(self, vocab={name: i for i, name in enumerate(names)})
        prefix = len(self.options.get("continuing_subword_prefix") or "")
        merges = [
            (left, right)
            for left, right in self.merges
            if left not in spellings and right not in spellings and left + right[prefix:] not in spellings
        ]
        vocab = {name: number for name, number in self.vocab.items() if name not in spellings}
        return replace(self, vocab=vocab, merges=merges)

    def extended(self, added: Iterable[Added]) -> Model:
        """Return the model with the added tokens in its vocabulary, which is what fixes their ids.

        Raises TokenizerError: two names for one id, two ids for one name, or a gap where ids are positions.
        """
        vocab, names = dict(self.vocab), {number: name for name, number in self.vocab.items()}
        for token in sorted(added, key=lambda token: token.id):
            name, number = (
                names.setdefault(token.id, token.content),
                vocab.setdefault(token.content, token.id),
            )
            shown = f"added token {token.content[:80]!r} has id {token.id}"
            if name != token.content:
                raise TokenizerError(f"{shown}, which is {name[:80]!r}")
            if number != token.id:
                raise TokenizerError(f"{shown}, and {number}")
            if self.kind == "Unigram" and token.id >= len(vocab):
                raise TokenizerError(f"{shown} where {len(vocab) - 1} is next")
        scores = [*self.scores, *[0.0] * (len(vocab) - len(self.scores))] if self.kind == "Unigram" else []
        return replace(self, vocab=vocab, scores=scores)


@dataclass(frozen=True)
class Located:
    """A token of a text: characters start to end of it, and which of its words they are in."""

    id: int
    start: int
    end: int
    word: int | None


Steps = Callable[[bool], list[stream.Step]]  # continues -> the decoder's steps


@dataclass(frozen=True)
class Pipeline:
    """A tokenizer in parts. normalizer, pre_tokenizer: as in tokenizer.json. steps: makes the decoder."""

    model: Model
    steps: Steps
    normalizer: Json | None = None
    pre_tokenizer: Json | None = None
    added: tuple[Added, ...] = ()


class PipelineTokenizer:
    """A Tokenizer (see tokenizer.py) over the `tokenizers` library.

    special.control may name tokens beyond the pipeline's special ones; all become control tokens.
    skip: ids that `decode` leaves out beside the control tokens (an unknown token marked special).
    """

    def __init__(self, pipeline: Pipeline, special: Special, *, skip: Collection[int] = ()) -> None:
        control = {name: number for name, number in special.control.items() if name != pipeline.model.unk}
        self.bos, self.eos = special.bos, special.eos
        self.add_bos, self.add_eos = special.add_bos, special.add_eos
        self.mask, self.around = special.mask, special.wrapping
        self.control: Mapping[str, int] = control
        known = {token.content for token in pipeline.added}
        extra = [Added(number, name) for name, number in control.items() if name not in known]
        self._added = tuple(sorted([*pipeline.added, *extra], key=lambda token: token.id))
        model = pipeline.model.extended(self._added)
        self._tokens = dict(zip(model.vocab.values(), model.vocab, strict=True))
        self.vocab_size = max(self._tokens, default=-1) + 1
        self._skip = frozenset(control.values()) | frozenset(skip)
        self._steps = pipeline.steps
        parts = {"normalizer": pipeline.normalizer, "pre_tokenizer": pipeline.pre_tokenizer}
        self._skeleton = json.dumps(_NOTHING | parts)
        self._model = model
        # What it is made of, every added token among them.
        self.pipeline = replace(pipeline, model=model, added=self._added)
        with guarded("the tokenizer cannot be built"):
            self._full = model.build()
            self._finding: dict[frozenset[str] | None, tokenizers.Tokenizer] = {}
            self._library(frozenset())

    def _library(self, found: frozenset[str] | None) -> tokenizers.Tokenizer:
        """Return the library's tokenizer that finds these control tokens in a text; None is all of them."""
        if found not in self._finding:
            text = frozenset[str]() if found is None else self.control.keys() - found
            # One model serves every way unless it could make a control token out of text.
            model = self._model.without(text).build() if text and self._model.gives(text) else self._full
            built = tokenizers.Tokenizer.from_str(self._skeleton)
            built.model = model
            built.add_tokens([_library_token(one) for one in self._added if self._is_found(one, found)])
            self._finding[found] = built
        return self._finding[found]

    def _is_found(self, token: Added, found: frozenset[str] | None) -> bool:
        plain = not (token.special or token.content in self.control)
        return found is None or plain or token.content in found

    def _encoded(self, text: str, control: bool | Collection[str]) -> tokenizers.Encoding:
        checked(text)
        found = None if control is True else frozenset(control or ()).intersection(self.control)
        with guarded("the tokenizer cannot be built"):
            library = self._library(found)
        with guarded("the text cannot be encoded"):
            return library.encode(text, add_special_tokens=False)

    def encode(self, text: str, *, control: bool | Collection[str] = False) -> list[int]:
        """Return the ids of a text; see `Tokenizer.encode`."""
        ids: list[int] = self._encoded(text, control).ids
        return ids

    def locate(self, text: str) -> list[Located]:
        """Return the tokens of a text with their places in it; see `Locates`."""
        found = self._encoded(text, False)
        places = zip(found.ids, found.offsets, found.word_ids, strict=True)
        return [Located(id, *_trimmed(text, *span), word) for id, span, word in places]

    def decode(self, ids: Iterable[int], *, control: bool = False, continues: bool = False) -> str:
        """Return the text of ids; see `Tokenizer.decode`."""
        return stream.decode(self.stream(control=control, continues=continues), ids)

    def stream(self, *, control: bool = False, continues: bool = False) -> stream.StreamDecoder:
        """Return a decoder that takes one id at a time; see `Tokenizer.stream`."""
        return stream.Chain(self._tokens.get if control else self._spoken, self._steps(continues))

    def _spoken(self, token: int) -> str | None:
        return None if token in self._skip else self._tokens.get(token)

    def piece(self, token: int) -> bytes:
        """Return the bytes that a token adds inside a text; see `Tokenizer.piece`."""
        piece = self._tokens.get(token, "").encode()
        if token in self._skip or not piece:
            return piece
        for step in self._steps(True):
            piece = step.inner(piece)
        return piece


_NOTHING: Json = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}}
_NOTHING |= dict.fromkeys(("truncation", "padding", "post_processor", "decoder"))


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Leave out the white space that a token begins with: byte-level BPE's and SentencePiece's do."""
    return end - len(text[start:end].lstrip()), end


def _library_token(token: Added) -> tokenizers.AddedToken:
    return tokenizers.AddedToken(
        token.content,
        special=token.special,
        normalized=token.normalized,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        single_word=token.single_word,
    )
