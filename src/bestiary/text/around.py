"""What a published tokenizer puts around a text, and around two: [CLS] a [SEP], [CLS] a [SEP] b [SEP].

A model of pairs (entailment, answers to questions, rerankers) tells the two apart by what stands between them
and by segments, BERT's token types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import TokenizerError

Json = dict[str, Any]

# A place as it is published: a special token by its spelling, or a text by its number; and its segment.
Named = tuple[str | int, int]


@dataclass(frozen=True)
class Place:
    """One place of a template: a special token, or where that is None the first text, 0, or the second, 1."""

    token: int | None
    text: int = 0
    segment: int = 0


@dataclass(frozen=True)
class Wrapped:
    """A text, or two, as the model reads it: its tokens, and which segment each is in."""

    ids: list[int]
    segments: list[int]


@dataclass(frozen=True)
class Around:
    """Where one text stands among special tokens, and where two do."""

    one: tuple[Place, ...]
    two: tuple[Place, ...]

    @classmethod
    def of(cls, one: Sequence[Named], two: Sequence[Named], vocab: Mapping[str, int]) -> Around:
        """Return a template with the ids of its tokens. Raises TokenizerError for one without an id."""
        return cls(*(tuple(_place(what, segment, vocab) for what, segment in named) for named in (one, two)))

    @classmethod
    def plain(cls, first: int | None, last: int | None) -> Around:
        """Return a token before and a token after each text, or none; two texts stand end to end."""
        before, after = (() if token is None else (Place(token),) for token in (first, last))
        one = (*before, Place(None), *after)
        return cls(one, (*one, *before, Place(None, 1), *after))

    @classmethod
    def bert(cls, first: int, last: int) -> Around:
        """Return [CLS] a [SEP] and [CLS] a [SEP] b [SEP], of which the end is segment 1."""
        one = (Place(first), Place(None), Place(last))
        return cls(one, (*one, Place(None, 1, 1), Place(last, segment=1)))

    @classmethod
    def roberta(cls, first: int, last: int) -> Around:
        """Return <s> a </s> and <s> a </s></s> b </s>, in one segment."""
        one = (Place(first), Place(None), Place(last))
        return cls(one, (*one, Place(last), Place(None, 1), Place(last)))

    def special(self, texts: int) -> int:
        """Return how many tokens stand around so many texts, 1 or 2."""
        return sum(place.token is not None for place in self._places(texts))

    def wrap(self, *texts: Sequence[int]) -> Wrapped:
        """Return one text or two with what stands around them."""
        ids: list[int] = []
        segments: list[int] = []
        for place in self._places(len(texts)):
            ids += texts[place.text] if place.token is None else [place.token]
            segments += [place.segment] * (len(ids) - len(segments))
        return Wrapped(ids, segments)

    def starts(self) -> list[int]:
        """Return the special tokens before a text alone."""
        texts = [i for i, place in enumerate(self.one) if place.token is None]
        return [place.token for place in self.one[: texts[0]] if place.token is not None]

    def _places(self, texts: int) -> tuple[Place, ...]:
        return self.one if texts == 1 else self.two


def _place(what: str | int, segment: int, vocab: Mapping[str, int]) -> Place:
    if isinstance(what, int):
        return Place(None, what, segment)
    if what not in vocab:
        raise TokenizerError(f"{what[:80]!r} is not in the vocabulary, but should stand around a text")
    return Place(vocab[what], segment=segment)


def read(value: object) -> tuple[Sequence[Named], Sequence[Named]] | None:
    """Read a tokenizer.json's post_processor: what stands around one text and around two; None for nothing.

    Raises TokenizerError: a kind that is not known here, or a damaged one.
    """
    if value is None:
        return None
    if not isinstance(value, dict):
        raise TokenizerError(f"post_processor is {str(value)[:80]!r}, not an object")
    match value.get("type"):
        case "ByteLevel":
            return None
        case "Sequence":
            found = [read(one) for one in _list(value, "processors")]
            return next((one for one in found if one is not None), None)
        case "BertProcessing":
            cls, sep = (_first(value, key) for key in ("cls", "sep"))
            one: list[Named] = [(cls, 0), (0, 0), (sep, 0)]
            return one, [*one, (1, 1), (sep, 1)]
        case "RobertaProcessing":
            cls, sep = (_first(value, key) for key in ("cls", "sep"))
            one = [(cls, 0), (0, 0), (sep, 0)]
            return one, [*one, (sep, 0), (1, 0), (sep, 0)]
        case "TemplateProcessing":
            one = [_item(item) for item in _list(value, "single")]
            end_to_end: list[Named] = [(1 if what == 0 else what, segment) for what, segment in one]
            return one, [_item(item) for item in _list(value, "pair")] if value.get(
                "pair"
            ) else one + end_to_end
        case kind:
            raise TokenizerError(f"post-processor {str(kind)[:80]!r} is not known here. Update bestiary")


def ends(one: Sequence[Named]) -> tuple[str | None, str | None]:
    """Return the one special token before a text, and the one after it; None where there are none or more."""
    texts = [i for i, (what, _) in enumerate(one) if isinstance(what, int)]
    before, after = (one[: texts[0]], one[texts[-1] + 1 :]) if texts else ((), ())
    first, last = (side[0][0] if len(side) == 1 else None for side in (before, after))
    return (first if isinstance(first, str) else None), (last if isinstance(last, str) else None)


def _list(part: Json, key: str) -> list[Any]:
    value = part.get(key)
    if isinstance(value, list):
        return value
    raise TokenizerError(f"post_processor: {key} is {str(value)[:80]!r}, not a list")


def _first(part: Json, key: str) -> str:
    value = part.get(key)
    if isinstance(value, list) and value and isinstance(value[0], str):
        return value[0]
    raise TokenizerError(f"post_processor: {key} is {str(value)[:80]!r}, not a token and its id")


def _item(item: object) -> Named:
    """Read {"SpecialToken": {"id": "[CLS]", "type_id": 0}} or {"Sequence": {"id": "A", "type_id": 0}}."""
    if isinstance(item, dict) and len(item) == 1:
        (kind, said), *_ = item.items()
        name, segment = (said.get("id"), said.get("type_id", 0)) if isinstance(said, dict) else (None, None)
        if isinstance(name, str) and isinstance(segment, int) and 0 <= segment <= 1:
            if kind == "SpecialToken":
                return name, segment
            if kind == "Sequence" and name in ("A", "B"):
                return "AB".index(name), segment
    raise TokenizerError(f"post_processor: {str(item)[:80]!r} is no place of a template")
