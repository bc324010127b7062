"""What reading a text gives: classes, entities, words behind masks, likelihoods."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from torch import Tensor

from ..load import Loaded
from ..text.pipeline import Located
from ..text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Classified:
    """What a head says of a text. label: the class of the highest score; scores: of every class."""

    label: str
    score: float
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Entity:
    """Characters start to end of a text, and what they are. score: the mean probability of its words."""

    start: int
    end: int
    label: str
    score: float
    text: str


@dataclass(frozen=True)
class Filler:
    """A token that may stand behind a mask. text: its characters; score: its probability."""

    id: int
    text: str
    score: float


@dataclass(frozen=True)
class Filled:
    """What masks hide. masks: for each, the likeliest tokens, the best first. text: with the best of each."""

    text: str
    masks: list[list[Filler]]

    @classmethod
    def of(
        cls, text: str, ids: Sequence[int], best: tuple[Tensor, Tensor], mask: int, tokenizer: Tokenizer
    ) -> Filled:
        """Return what masks of a text hide. best: probabilities and ids (masks, top), the likeliest first."""
        found = [
            [
                Filler(id, tokenizer.piece(id).decode("utf-8", "replace").strip(), score)
                for id, score in zip(chosen, scores, strict=True)
            ]
            for scores, chosen in zip(best[0].tolist(), best[1].tolist(), strict=True)
        ]
        first = iter(fillers[0].id for fillers in found)
        return cls(tokenizer.decode([next(first) if id == mask else id for id in ids]), found)


@dataclass(frozen=True)
class Scored:
    """How likely a text is, or a choice after a prompt.

    logprob: the sum of logprobs, one a token (natural logarithms). token_ids: the tokens that were scored:
    without the first of a text, where nothing stands before it.
    """

    text: str
    logprob: float
    token_ids: list[int]
    logprobs: list[float]

    @classmethod
    def of(cls, text: str, ids: Sequence[int], logprobs: Tensor) -> Scored:
        """Return the score of the last of ids, as many as were scored."""
        each: list[float] = logprobs.tolist()
        return cls(text, math.fsum(each), list(ids[len(ids) - len(each) :]), each)

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-probability of a token."""
        return math.exp(-self.per_token)

    @property
    def per_token(self) -> float:
        """The mean log-probability of a token."""
        return self.logprob / len(self.logprobs)

    @property
    def per_character(self) -> float:
        """logprob over the text's characters: acc_norm of the evaluation harness."""
        return self.logprob / len(self.text)

    @property
    def per_byte(self) -> float:
        """logprob over the text's bytes in UTF-8, which compares models of different tokenizers."""
        return self.logprob / len(self.text.encode())


@dataclass(frozen=True)
class Classes:
    """The names of a head's outputs by number. kind: what makes scores of them, as config.json has it."""

    named: Mapping[str, str]
    kind: str

    @classmethod
    def of(cls, loaded: Loaded) -> Classes:
        """Read the names of a config.json."""
        said, kind = loaded.config.get("id2label"), str(loaded.config.get("problem_type"))
        given = {str(key): str(name) for key, name in said.items()} if isinstance(said, dict) else {}
        names = [name for use in loaded.match.uses for name in use.published]
        if not given and any(name.endswith("seq_relationship.weight") for name in names):
            given = {"0": "IsNext", "1": "NotNext"}  # as arXiv 1810.04805 calls them
        return cls(given, kind)

    def names(self, count: int) -> list[str]:
        """Return the names of so many outputs: LABEL_0, LABEL_1, ... where there are none."""
        return [self.named.get(str(i), f"LABEL_{i}") for i in range(count)]

    def told(self, outputs: Tensor) -> Classified:
        """Return what outputs (classes,) say: one number alone, and those of a regression, as they are."""
        if self.kind == "multi_label_classification":
            scores = outputs.sigmoid()
        else:
            scores = outputs if len(outputs) == 1 or self.kind == "regression" else outputs.softmax(-1)
        names = self.names(len(outputs))
        best = int(scores.argmax())
        return Classified(names[best], float(scores[best]), dict(zip(names, scores.tolist(), strict=True)))


def entities(text: str, tokens: Sequence[Located], rows: Tensor, names: Sequence[str]) -> list[Entity]:
    """Join tagged words to entities. rows (tokens, classes): probabilities.

    A word is what its first token says, as taggers are trained; the labels of its later tokens mean nothing.
    B- begins an entity, I- goes on with one of the same label (or begins one, where none is there), O is
    outside; of labels without B- and I-, neighbours of one label are one entity.
    """
    found: list[list[tuple[int, int, float]]] = []
    labels: list[str] = []
    joined = ""  # the label that the next word may go on with
    for _, group in groupby(zip(tokens, rows, strict=True), key=lambda pair: _word(pair[0])):
        word = list(group)
        probability, chosen = word[0][1].max(-1)
        said = names[int(chosen)]
        mark, label = (said[:1], said[2:]) if said[1:2] == "-" else ("I", said)
        if said == "O":
            joined = ""
            continue
        if mark in "BSU" or label != joined:
            found.append([])
            labels.append(label)
        found[-1].append((word[0][0].start, word[-1][0].end, float(probability)))
        joined = "" if mark in "ELSU" else label
    return [
        Entity(
            parts[0][0],
            parts[-1][1],
            label,
            sum(p for *_, p in parts) / len(parts),
            text[parts[0][0] : parts[-1][1]],
        )
        for label, parts in zip(labels, found, strict=True)
    ]


def _word(token: Located) -> tuple[int | None, int]:
    """What tells words apart; a token of no word is one of its own."""
    return token.word, token.start if token.word is None else 0
