"""What models make of texts: vectors, classes, entities, words behind masks, and how likely they are.

Any model reads; which of this one can do depends on its class and its heads, and a method says so where it
cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..errors import RequestError
from ..load import Loaded
from ..models import Encoder, EncoderDecoder, Writer
from ..text.around import Wrapped
from ..text.tokenizer import Locates, Tokenizer
from . import encode, score
from .encode import Progress
from .findings import Classes, Classified, Entity, Filled, Scored, entities
from .params import show
from .pooling import Pooling, last, open_pooling
from .session import common

# A text, or two that the model judges together: (question, answer), (premise, hypothesis).
TextOrPair = str | tuple[str, str]


class Reader:
    """A model with its tokenizer and its folder, as something that reads. The LLM is one.

    context: how many tokens of a text are read.
    """

    def __init__(self, loaded: Loaded, tokenizer: Tokenizer, path: Path, context: int) -> None:
        self._loaded, self._tokenizer, self._path, self._context = loaded, tokenizer, path, context

    def embed(
        self,
        texts: Sequence[str],
        *,
        prompt: str | None,
        prompt_name: str | None,
        truncate: bool,
        progress: Progress | None,
    ) -> Tensor:
        """Return the vectors of texts; see LLM.embed."""
        pooling = self.pooling
        before = _prompt(pooling, prompt, prompt_name)
        lowered = [before + text for text in texts]
        lowered = [text.lower() for text in lowered] if pooling.lower else lowered
        read = self._wrapped(lowered, truncate, pooling.max_tokens)
        if not read:
            return torch.empty(0, 0)
        return encode.embed(self._loaded.model, read, pooling, progress=progress)

    def classify(
        self, texts: Sequence[TextOrPair], *, truncate: bool, progress: Progress | None
    ) -> list[Classified]:
        """Return what the model's head says of texts, or of pairs; see LLM.classify."""
        model = self._loaded.model
        if not (self._loaded.scores or _judges(model)):
            raise self.cannot("classify", "has no head that judges a whole text")
        classes = Classes.of(self._loaded)
        read = self._wrapped(texts, truncate)
        if not read:
            return []
        return [classes.told(one) for one in encode.verdicts(model, read, progress=progress)]

    def tag(self, texts: Sequence[str], *, truncate: bool, progress: Progress | None) -> list[list[Entity]]:
        """Return the entities in texts; see LLM.tag."""
        model, tokenizer = self._loaded.model, self._tokenizer
        if not (isinstance(model, Encoder) and _tags(self._loaded)):
            raise self.cannot("tag", "has no head that judges each token")
        if not isinstance(tokenizer, Locates):
            raise RequestError(
                f"{self._path.name}: its tokenizer does not tell where in a text its tokens stand; use its "
                "tokenizer.json"
            )
        classes = Classes.of(self._loaded)
        located = [tokenizer.locate(text) for text in texts]
        read = self._wrapped(texts, truncate)
        begin, special = len(tokenizer.around.starts()), tokenizer.around.special(1)
        counts = [len(one.ids) - special for one in read]
        said = encode.tags(model, read, progress=progress)
        return [
            entities(
                text, tokens[:count], row[begin : begin + count].softmax(-1), classes.names(row.shape[1])
            )
            for text, tokens, count, row in zip(texts, located, counts, said, strict=True)
        ]

    def fill_mask(
        self, texts: Sequence[str], *, top: int, truncate: bool, progress: Progress | None
    ) -> list[Filled]:
        """Return what the masks of texts hide; see LLM.fill_mask."""
        model, tokenizer = self._loaded.model, self._tokenizer
        if not isinstance(model, Encoder) or not _fills(model):
            raise self.cannot("fill_mask", "has no head that says what a mask hides")
        mask = self._mask()
        if top < 1:
            raise RequestError(f"top={show(top)} should be 1 or more")
        spelling = next(name for name, id in tokenizer.control.items() if id == mask)
        read = self._wrapped(texts, truncate, control=(spelling,))
        for text, wrapped in zip(texts, read, strict=True):
            if mask not in wrapped.ids:
                raise RequestError(f"{show(text)} holds no {spelling}: write it where a word is to be found")
        size = tokenizer.vocab_size
        found = encode.hidden_by(model, read, mask, size=size, top=top, progress=progress)
        return [
            Filled.of(text, wrapped.ids, best, mask, tokenizer)
            for text, wrapped, best in zip(texts, read, found, strict=True)
        ]

    def score(self, texts: Sequence[str], *, progress: Progress | None) -> list[Scored]:
        """Return how likely each text is; see LLM.score."""
        model = self._loaded.model
        self._check_scores()
        if isinstance(model, EncoderDecoder):
            raise RequestError(
                f"{self._path.name} is an encoder-decoder: it tells how likely an answer to a source is. "
                "Give both: score(source, choices=[answer]), in a command --choice"
            )
        scored: list[Scored] = []
        for one in self._masked(model, texts) if isinstance(model, Encoder) else self._read(model, texts):
            scored.append(one)
            if progress is not None:
                progress(len(scored), len(texts))
        return scored

    def choices(self, prompt: str, choices: Sequence[str]) -> list[Scored]:
        """Return how likely each choice is after a prompt; see LLM.score."""
        model, tokenizer = self._loaded.model, self._tokenizer
        self._check_scores()
        if isinstance(model, Encoder):
            raise self.cannot("score choices", "reads both sides of a text and continues none")
        if empty := [choice for choice in choices if not tokenizer.encode(choice)]:
            raise RequestError(f"the choice {show(empty[0])} has no tokens: there is nothing to score")
        if isinstance(model, EncoderDecoder):
            source = tokenizer.around.wrap(tokenizer.encode(prompt)).ids
            self._check_room(prompt, source)
            sequences = [[*model.start, *tokenizer.encode(choice)] for choice in choices]
            begins = [len(model.start)] * len(choices)
        else:
            source, given = None, self._begun(prompt)
            sequences = [self._begun(prompt + choice) for choice in choices]
            begins = [common(given, ids) for ids in sequences]
            if 0 in begins:
                raise RequestError("nothing stands before the choices: give a prompt that is not empty")
        for choice, ids in zip(choices, sequences, strict=True):
            self._check_room(choice, ids)
        scored = score.continuations(model, sequences, begins, source=source) if sequences else []
        return [
            Scored.of(choice, ids, one) for choice, ids, one in zip(choices, sequences, scored, strict=True)
        ]

    def _masked(self, model: Encoder, texts: Sequence[str]) -> Iterator[Scored]:
        around, mask = self._tokenizer.around, self._mask()
        read = [around.wrap(self._tokenizer.encode(text)) for text in texts]
        begin, special = len(around.starts()), around.special(1)
        for text, one in zip(texts, read, strict=True):
            self._check_room(text, one.ids, given=special)
        for text, one in zip(texts, read, strict=True):
            own = slice(begin, begin + len(one.ids) - special)
            found = encode.pseudo_log_likelihoods(model, one, mask)
            yield Scored.of(text, one.ids[own], found[own])

    def _read(self, model: Writer, texts: Sequence[str]) -> Iterator[Scored]:
        read = [self._begun(text) for text in texts]
        for text, ids in zip(texts, read, strict=True):
            self._check_room(text, ids, given=1)
        for text, ids in zip(texts, read, strict=True):
            yield Scored.of(text, ids, score.log_likelihoods(model, ids))

    # Texts to tokens.

    def _begun(self, text: str) -> list[int]:
        tokenizer = self._tokenizer
        bos = [tokenizer.bos] if tokenizer.add_bos and tokenizer.bos is not None else []
        return bos + tokenizer.encode(text)

    def _wrapped(
        self,
        texts: Sequence[TextOrPair],
        truncate: bool,
        most: int | None = None,
        *,
        control: Sequence[str] = (),
    ) -> list[Wrapped]:
        """Return texts with what their tokenizer puts around them.

        most: how many tokens are read, where it is fewer than the model can. control: control tokens that are
        found in them. Raises RequestError for one that is longer, unless it may be cut.
        """
        room = min(self._context, most or self._context)
        read: list[Wrapped] = []
        for number, text in enumerate(texts):
            pair = (text,) if isinstance(text, str) else tuple(text)
            if len(pair) not in (1, 2):
                raise RequestError(f"text {number} is {len(pair)} texts; one, or a pair of two, can be read")
            parts = [self._tokenizer.encode(part, control=control) for part in pair]
            left = room - self._tokenizer.around.special(len(parts))
            if not truncate and sum(map(len, parts)) > left:
                count = room - left + sum(map(len, parts))
                raise RequestError(
                    f"text {number}, {show(pair[0])}, has {count} tokens, and {self._path.name} reads "
                    f"{room}; shorten it, or leave out what is beyond: truncate=True, in a command --truncate"
                )
            read.append(self._tokenizer.around.wrap(*_cut(parts, left)))
        return read

    def _check_room(self, text: str, ids: Sequence[int], *, given: int = 0) -> None:
        """Refuse a text that is too long, or one of which all tokens are given and none is scored."""
        if len(ids) > self._context:
            raise RequestError(
                f"{show(text)} has {len(ids)} tokens, and the context is {self._context}; score it in pieces"
            )
        if given and len(ids) <= given:
            raise RequestError(f"{show(text)} leaves nothing to score: its {len(ids)} token(s) are all given")

    # What the model is.

    @cached_property
    def pooling(self) -> Pooling:
        """What makes a text's vector of its states, as the model's folder says."""
        pooling = open_pooling(self._path)
        alone = not isinstance(self._loaded.model, Encoder | EncoderDecoder)
        # Only a decoder's last token has seen all of a text.
        return Pooling(modes=(last,)) if pooling.assumed and alone else pooling

    def _mask(self) -> int:
        if self._tokenizer.mask is None:
            raise RequestError(f"the tokenizer of {self._path.name} names no mask token")
        return self._tokenizer.mask

    def _check_scores(self) -> None:
        if not _scores(self._loaded):
            raise self.cannot("score", "gives no probabilities of words")

    @property
    def abilities(self) -> list[str]:
        """The methods that this model can be asked for."""
        return [name for name, can in ABILITIES.items() if can(self._loaded)]

    def cannot(self, what: str, why: str) -> RequestError:
        """Return the error that says what a model cannot do, why, and what it can."""
        kind = _KINDS.get(type(self._loaded.model), "a decoder")
        return RequestError(
            f"{self._path.name} cannot {what}: it is {kind} that {why}. It can {', '.join(self.abilities)}"
        )


@runtime_checkable
class Sized(Protocol):
    """A matrix, packed or not."""

    out_features: int


_KINDS: dict[type, str] = {Encoder: "an encoder", EncoderDecoder: "an encoder-decoder"}


def _judges(model: object) -> bool:
    return isinstance(model, Encoder) and not isinstance(model.judge, torch.nn.Identity)


def _outputs(model: Encoder) -> int:
    """How many numbers the head gives for a token; 0 without one."""
    sized = [part.out_features for part in model.head.modules() if isinstance(part, Sized)]
    return sized[-1] if sized else 0


def _fills(model: object) -> bool:
    return isinstance(model, Encoder) and _outputs(model) == model.embed.num_embeddings


def _tags(loaded: Loaded) -> bool:
    said = loaded.config.get("architectures")
    named = isinstance(said, list) and any(str(one).endswith("ForTokenClassification") for one in said[:1])
    return isinstance(loaded.model, Encoder) and named and _outputs(loaded.model) > 0


def _writes(loaded: Loaded) -> bool:
    return not isinstance(loaded.model, Encoder) and not loaded.scores


def _scores(loaded: Loaded) -> bool:
    return _writes(loaded) or _fills(loaded.model)


# What can be asked of a model, by the name of the method.
ABILITIES: dict[str, Callable[[Loaded], bool]] = {
    "embed": lambda loaded: True,
    "classify": lambda loaded: loaded.scores or _judges(loaded.model),
    "tag": _tags,
    "fill_mask": lambda loaded: _fills(loaded.model),
    "generate": _writes,
    "score": _scores,
}


def _prompt(pooling: Pooling, prompt: str | None, name: str | None) -> str:
    if prompt is not None and name is not None:
        raise RequestError("prompt and prompt_name say the same thing twice: give one of them")
    if name is None:
        return pooling.prompt if prompt is None else prompt
    if name not in pooling.prompts:
        known = ", ".join(pooling.prompts) or "none"
        raise RequestError(f"prompt_name={show(name)} is not in the model's folder; there: {known}")
    return pooling.prompts[name]


def _cut(parts: Sequence[list[int]], room: int) -> list[list[int]]:
    """Leave out tokens at the end, of the longer of two texts first, until they fit."""
    kept = [len(part) for part in parts]
    for _ in range(sum(kept) - max(room, 0)):
        kept[max(range(len(kept)), key=lambda i: (kept[i], i))] -= 1
    return [part[:count] for part, count in zip(parts, kept, strict=True)]
