"""icetk's SentencePiece file as ChatGLM-6B and GLM-130B use it: spaces and newlines are pieces, pictures ids.

Their code (THUDM/icetk, THUDM/chatglm-6b tokenization_chatglm.py, SAT's icetk_glm_130B) writes a newline as
the piece "<n>", a tab as "<|tab|>" and 2 to 80 spaces as "<|blank_2|>" to "<|blank_80|>". The spelling of
such a piece in a text is that piece too, "<n>" a newline: their code cannot tell, the models were trained so,
and no control token comes of it. Ids below 20,000 are for pictures, which have no text; ChatGLM-6B v1.1
dropped them.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from dataclasses import replace
from pathlib import Path

from ..errors import TokenizerError
from . import modelproto, stream
from .boundary import reading
from .declared import Declared
from .modelproto import BYTE, CONTROL, USER_DEFINED, ModelProto
from .pipeline import Special
from .quirks.entry import Icetk
from .sentencepiece import SentencePieceTokenizer

_BLANKS = range(2, 81)
_TEXT_OF = {"<n>": "\n", "<|tab|>": "\t", **{f"<|blank_{count}|>": " " * count for count in _BLANKS}}
_PIECE_OF = {text: piece for piece, text in _TEXT_OF.items()}
_REWRITTEN = re.compile("[\n\t]| {2,80}")
_MOST_IMAGES = 1 << 20


class IcetkTokenizer(SentencePieceTokenizer):
    """A Tokenizer (see tokenizer.py) over `sentencepiece`, with icetk's rewriting of white space.

    shown: spelling -> how decoding with control tokens shows it; what follows such a token is a text of its
    own there, which loses the space that it begins with.
    """

    def __init__(self, proto: ModelProto, special: Special, *, shown: Mapping[str, str]) -> None:
        super().__init__(proto, special)
        numbers = {piece: number for number, piece in enumerate(proto.pieces)}
        self._text_of = {numbers[piece]: text for piece, text in _TEXT_OF.items() if piece in numbers}
        self._marks_of = {numbers[piece]: mark for piece, mark in shown.items() if piece in numbers}

    def _words(self, text: str, *, first: bool = True) -> list[int]:
        return super()._words(_REWRITTEN.sub(lambda found: _PIECE_OF[found[0]], text), first=first)

    def _shown(self, token: int) -> str | int | None:
        text = self._text_of.get(token)
        return super()._shown(token) if text is None else text

    def stream(self, *, control: bool = False, continues: bool = False) -> stream.StreamDecoder:
        """Return a decoder that takes one id at a time; see `Tokenizer.stream`."""
        if not (control and self._marks_of):
            return super().stream(control=control, continues=continues)
        return _Marked(self, self._marks_of, continues=continues)


class _Marked:
    """A StreamDecoder that begins anew after each token that is shown by a mark, as SAT's detokenize does."""

    def __init__(self, tokenizer: IcetkTokenizer, marks: Mapping[int, str], *, continues: bool) -> None:
        self._tokenizer, self._marks = tokenizer, marks
        self._open = tokenizer.stream(continues=continues)

    def push(self, token: int) -> str:
        if token not in self._marks:
            return self._open.push(token)
        text = self.flush() + self._marks[token]
        self._open = self._tokenizer.stream()
        return text

    def flush(self) -> str:
        return self._open.flush()

    def place(self) -> Hashable:
        return self._open.place()


def load(
    path: Path, data: bytes, said: Declared, layout: Icetk, *, control: Mapping[str, int]
) -> IcetkTokenizer:
    """Return the tokenizer of an ice_text.model's bytes.

    said: what the files beside it declare. layout: what its users add to it. control: more control tokens.
    Raises TokenizerError: no SentencePiece model, or one that is not icetk's.
    """
    with reading(path):
        proto = modelproto.read(data)
        if "<n>" not in proto.pieces:
            raise TokenizerError("the model has no piece '<n>' for newlines: it is not icetk's")
        images = _images(said, layout)
        proto = _complete(proto, layout, images)
        vocab = {piece: number for number, piece in enumerate(proto.pieces)}
        own = zip(proto.pieces[images:], proto.types[images:], strict=True)
        controls = {name: vocab[name] for name, kind in own if kind == CONTROL} | dict(control)
        special = said.special(vocab | controls, controls)
        return IcetkTokenizer(proto, special, shown=layout.shown)


def _images(said: Declared, layout: Icetk) -> int:
    count = said.options.get("num_image_tokens", layout.image)
    if type(count) is not int or not 0 <= count <= _MOST_IMAGES:
        raise TokenizerError(f"tokenizer_config.json: num_image_tokens is {str(count)[:80]!r}, not 0 to 2^20")
    return count


def _complete(proto: ModelProto, layout: Icetk, images: int) -> ModelProto:
    """Return a model with the pictures' ids before the pieces, and the pieces that its users add after them.

    ChatGLM-6B v1.1 was published with the second already in the file.
    """
    added: list[tuple[str, int]] = []
    if layout.special[0] not in proto.pieces:
        added += [(name, CONTROL) for name in layout.special]
        added += [(piece, USER_DEFINED) for piece in _TEXT_OF if piece not in proto.pieces]
        added += [(f"<0x{byte:02X}>", BYTE) for byte in range(256)]
    before = [f"<image_{number}>" for number in range(images)]
    return replace(
        proto,
        pieces=[*before, *proto.pieces, *(piece for piece, _ in added)],
        scores=[*[0.0] * images, *proto.scores, *[0.0] * len(added)],
        types=[*[CONTROL] * images, *proto.types, *(kind for _, kind in added)],
        byte_fallback=proto.byte_fallback or bool(added),
    )
