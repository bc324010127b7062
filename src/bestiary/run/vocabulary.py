"""What generation knows of a model's tokens, and what bounds an answer: ends, constraint and length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ..errors import RequestError
from ..text.stream import StreamDecoder
from .constrain import Among, AtLeast, Banned, Choices, Constraint, Every, First, Last, NoRepeat
from .params import BeamParams, Constrained, SamplingParams, show
from .room import Room
from .sources import source


@dataclass(frozen=True)
class Rules:
    """What a model's files say that all of its answers must be (run/published.py reads it).

    first: the token that each begins with, where one token alone is before it: an encoder-decoder's
    (transformers' forced_bos_token_id). last: tokens that the longest possible one ends with. banned:
    sequences that are in none. banned_first: tokens that none begins with.
    """

    first: int | None = None
    last: tuple[int, ...] = ()
    banned: tuple[tuple[int, ...], ...] = ()
    banned_first: tuple[int, ...] = ()

    def within(self, size: int) -> Rules:
        """Return the rules without what they say of ids beyond `size`, which are never chosen anyway."""

        def known(ids: Iterable[int]) -> tuple[int, ...]:
            return tuple(i for i in ids if 0 <= i < size)

        banned = tuple(sequence for sequence in self.banned if known(sequence) == sequence)
        first = self.first if self.first is not None and 0 <= self.first < size else None
        return Rules(first, known(self.last), banned, known(self.banned_first))


@dataclass(frozen=True)
class Vocabulary:
    """What generation has to know of a tokenizer.

    size: how many ids have a text; logits beyond are padding of the weights and never chosen. ends: the
    model's own end tokens. decoder: makes the text decoder of one answer. encode: the ids of a text. rules:
    what the model's files say of its answers. grammar: makes a constraint of a grammar (run/sources.py) and
    the tokens that end an answer.
    """

    size: int
    ends: frozenset[int]
    decoder: Callable[[], StreamDecoder]
    encode: Callable[[str], list[int]] | None = None
    rules: Rules = field(default_factory=Rules)
    grammar: Callable[[str, frozenset[int]], Constraint] | None = None

    def text(self, ids: Iterable[int]) -> str:
        """Return the text of an answer's tokens."""
        decoder = self.decoder()
        return "".join([*map(decoder.push, ids), decoder.flush()])

    def spelled(self, text: str) -> list[int]:
        """Return the ids that a whole answer of this text has. Raises RequestError where there are none."""
        if self.encode is None:
            raise RequestError("this vocabulary has no tokenizer to spell choice and bad_words with")
        line = self.encode("\n")
        # Behind a line's end a tokenizer puts no space of its own in front, as some do at a text's start.
        ways = (self.encode(text), self.encode(f"\n{text}")[len(line) :])
        for ids in ways:
            if ids and all(i < self.size for i in ids) and self.text(ids) == text:
                return ids
        raise RequestError(
            f"{show(text)} cannot be an answer: this tokenizer does not give it back unchanged"
        )


@dataclass(frozen=True)
class Bounds:
    """What one answer may be: its constraint, None for none; the tokens that end it; how many it may have."""

    constraint: Constraint | None
    ends: frozenset[int]
    length: int

    @classmethod
    def of(
        cls,
        room: Room,
        prompt: Sequence[int],
        params: SamplingParams | BeamParams,
        vocabulary: Vocabulary,
    ) -> Bounds:
        """Return what a request makes of a model's room and its tokenizer.

        Raises RequestError for a prompt that is empty or does not fit, for ids outside the vocabulary, and
        for constraints that no answer can meet.
        """
        left = room.left(prompt)
        _check(prompt, params, vocabulary.size)
        own = frozenset[int]() if params.ignore_eos else vocabulary.ends
        ends = own | frozenset(params.stop_token_ids or ())
        length = left if params.max_tokens is None else min(params.max_tokens, left)
        begun = tuple(room.begun(prompt))
        return cls(_constraint(params, vocabulary, ends, begun, length), ends, length)


def _check(prompt: Sequence[int], params: SamplingParams | BeamParams, vocabulary: int) -> None:
    named: dict[str, Iterable[object]] = {
        "the prompt": prompt,
        "stop_token_ids": params.stop_token_ids or (),
        "allowed_token_ids": params.allowed_token_ids or (),
        "logit_bias": (params.logit_bias or ()) if isinstance(params, SamplingParams) else (),
    }
    for name, ids in named.items():
        for i in ids:
            if not isinstance(i, int) or not 0 <= i < vocabulary:
                raise RequestError(
                    f"token {show(i)} in {name} is not one of the model's 0 to {vocabulary - 1}"
                )


def _constraint(
    params: Constrained, vocabulary: Vocabulary, ends: frozenset[int], begun: tuple[int, ...], length: int
) -> Constraint | None:
    """Return what constrains an answer that stands behind the tokens `begun`.

    None where nothing does, so that nothing is computed for it.
    """
    rules, parts = vocabulary.rules.within(vocabulary.size), list[Constraint]()
    first = () if rules.first is None or len(begun) != 1 else (rules.first,)
    taken = len(first)
    if params.choice is not None:
        parts.append(_choices(params.choice, vocabulary, ends, length - taken))
    if (grammar := source(params)) is not None:
        parts.append(_grammar(grammar, vocabulary, ends))
    if params.allowed_token_ids is not None:
        parts.append(Among(tuple(params.allowed_token_ids)))
    if banned := (*rules.banned, *_bad(params.bad_words or (), vocabulary)):
        parts.append(Banned(banned))
    if rules.banned_first:
        parts.append(AtLeast(1, rules.banned_first))
    if params.min_tokens > taken:
        parts.append(AtLeast(params.min_tokens - taken, tuple(ends)))
    if params.no_repeat_ngram_size:
        parts.append(NoRepeat(params.no_repeat_ngram_size, (*begun, *first)))
    if isinstance(params.constraint, Constraint):
        parts.append(params.constraint)
    if rules.last and length > taken:
        parts.append(Last(length - taken - 1, rules.last))
    if first:
        return First(first[0], Every(tuple(parts)))
    return (parts[0] if len(parts) == 1 else Every(tuple(parts))) if parts else None


def _choices(texts: Sequence[str], vocabulary: Vocabulary, ends: frozenset[int], length: int) -> Choices:
    if not ends:
        raise RequestError(
            "choice needs a token that ends the answer, and there is none: give stop_token_ids, or leave "
            "ignore_eos off"
        )
    spelled = [vocabulary.spelled(text) for text in texts]
    longest = max(map(len, spelled))
    if longest > length:
        raise RequestError(
            f"a choice has {longest} tokens, and max_tokens and the context leave {length}; give more "
            "max_tokens"
        )
    return Choices.of(spelled, ends)


def _grammar(grammar: str, vocabulary: Vocabulary, ends: frozenset[int]) -> Constraint:
    if vocabulary.grammar is None:
        raise RequestError("this vocabulary has no tokenizer to follow json_schema, regex and grammar with")
    if not ends:
        raise RequestError(
            "json_schema, regex and grammar need a token that ends the answer, and there is none: give "
            "stop_token_ids, or leave ignore_eos off"
        )
    return vocabulary.grammar(grammar, ends)


def _bad(words: Sequence[str], vocabulary: Vocabulary) -> list[tuple[int, ...]]:
    """Return the token sequences of words, inside a text with a space in front and at its start without."""
    if not words:
        return []
    if vocabulary.encode is None:
        raise RequestError("this vocabulary has no tokenizer to spell choice and bad_words with")
    texts = [text for word in words for text in (word.lstrip() or word, f" {word.lstrip()}")]
    return list(dict.fromkeys(tuple(ids) for text in texts if (ids := vocabulary.encode(text))))
