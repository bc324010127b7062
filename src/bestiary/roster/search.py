"""The systems that a search asks for: by class, size, licence, language, feature and family, and by words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import RequestError
from . import entries, normal
from .entry import COMMERCIAL, FEATURES, KINDS, Checkpoint, Entry
from .lineage import chain, verdict, verdicts
from .published import by_id

_SIZE = re.compile(r"(<=|>=|<|>|=)?\s*(\d{1,4}(?:\.\d{1,3})?)\s*([kmbt])", re.ASCII | re.IGNORECASE)
_UNITS = {"k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<=": lambda size, wanted: size <= wanted,
    ">=": lambda size, wanted: size >= wanted,
    "<": lambda size, wanted: size < wanted,
    ">": lambda size, wanted: size > wanted,
    "=": lambda size, wanted: size == wanted,
}
# What people call the four words of COMMERCIAL.
_ALSO = {"commercial": "yes", "free": "yes", "noncommercial": "no", "non-commercial": "no"}


@dataclass(frozen=True)
class Search:
    """What is asked of a system; all of it must hold.

    sizes: `13b` or `<=7b`, rounded as they are written; several are of one checkpoint. licence: `commercial`,
    one of COMMERCIAL, or a part of a licence's name. words: parts of what is said of it. Raises RequestError
    for a word that no system has, with the nearest ones.
    """

    words: Sequence[str] = ()
    kind: str | None = None
    sizes: Sequence[str] = ()
    licence: str | None = None
    language: str | None = None
    feature: str | None = None
    family: str | None = None

    def __post_init__(self) -> None:
        known = entries().values()
        _check("kind", self.kind, KINDS)
        _check("feature", self.feature, FEATURES)
        _check("language", self.language, {word for entry in known for word in entry.languages})
        _check("family", self.family, {word for entry in known for word in entry.family})
        for size in self.sizes:
            _bound(size)

    def fits(self, entry: Entry) -> bool:
        """Tell whether a system is one of those asked for."""
        return (
            self.kind in (None, entry.kind)
            and (self.language is None or self.language in entry.languages)
            and (self.feature is None or self.feature in entry.features)
            and (self.family is None or self.family in entry.family)
            and (not self.sizes or any(map(self._fits_size, sizes(entry))))
            and (self.licence is None or _is_licensed(entry, self.licence))
            and (not self.words or all(normal(word) in _said(entry) for word in self.words))
        )

    def _fits_size(self, size: int) -> bool:
        return all(bound(size) for bound in map(_bound, self.sizes))


def sizes(entry: Entry) -> list[int]:
    """How many parameters a system's checkpoints have, each number once, the smallest first."""
    return sorted({size for one in entry.checkpoints if (size := params(one)) is not None})


def params(checkpoint: Checkpoint) -> int | None:
    """How many parameters a checkpoint has; None where nobody has counted."""
    row = by_id().get(checkpoint.like or checkpoint.id)
    return None if row is None else row.params


def is_size(params: int, size: str) -> bool:
    """Tell whether a number of parameters is what `<=7b` asks for. Raises RequestError for another text."""
    return _bound(size)(params)


def _bound(text: str) -> Callable[[int], bool]:
    """Read `<=7b`: what tells whether a number of parameters, rounded to as many digits, fits."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise RequestError(f"--size {text[:40]!r} should be like 7b, '<=13b' or '>=350m'")
    sign, number, unit = found.groups()
    digits = len(number.partition(".")[2])
    # LLaMA-13B has 13.02 thousand million: it is no larger than 13b.
    return lambda size: _COMPARE[sign or "="](round(size / _UNITS[unit.lower()], digits), float(number))


def _is_licensed(entry: Entry, wanted: str) -> bool:
    word = _ALSO.get(wanted.lower(), wanted.lower())
    if word in COMMERCIAL:
        return word in (verdicts(entry) or {verdict(chain(entry))})
    named = (entry.licence.weights, *(one.licence or "" for one in entry.checkpoints))
    return any(normal(word) in normal(name) for name in named)


def _said(entry: Entry) -> str:
    texts = (
        entry.id, entry.name, entry.listed or "", *entry.aliases, entry.organisation, entry.kind, entry.date,
        *entry.family, *entry.features, *entry.training, entry.about.en, entry.about.zh, entry.claim.en,
        entry.claim.zh, entry.licence.weights, *(one.id for one in entry.checkpoints),
        *(step.base for step in entry.lineage),
    )  # fmt: skip
    return "\n".join(map(normal, texts))


def _check(what: str, word: str | None, known: Iterable[str]) -> None:
    if word is None or word in (known := sorted(set(known))):
        return
    close = difflib.get_close_matches(word, known) or known
    raise RequestError(f"no system of the roster has the {what} {word[:40]!r}\nTry: {', '.join(close)}")
