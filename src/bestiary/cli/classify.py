"""`bestiary classify`: what a model's head says of texts: classes, rewards, or the entities in them."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import RequestError
from .options import open_llm
from .terminal import BOLD, DIM, ReadingBar, columns, fit, gauge, paint, print_json, printable
from .texts import add_texts, add_truncate, room, texts

if TYPE_CHECKING:
    from ..run.findings import Classified, Entity
    from ..run.llm import LLM

# Colours of entities' labels, in the order in which the labels are met.
_COLOURS = ("30;42", "30;46", "30;43", "30;45", "30;44")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_texts(parser)
    add_truncate(parser)
    parser.add_argument("--pairs", action="store_true", help="each text is two, with a tab between them")


def run(options: argparse.Namespace) -> int:
    """Print the classes of each text, or the entities in it."""
    given = texts(options)
    pairs = [_pair(text) for text in given] if options.pairs else None
    with open_llm(options) as llm:
        if "tag" in llm.abilities and pairs is None:
            return _tag(llm, given, options)
        with ReadingBar(f"{len(given):,} texts") as bar:
            found = llm.classify(pairs or given, truncate=options.truncate, progress=bar)
    if options.json:
        print_json(
            [{"text": t, **dataclasses.asdict(one)} for t, one in zip(pairs or given, found, strict=True)]
        )
        return 0
    for text, one in zip(given, found, strict=True):
        print(paint(fit(text, room()), BOLD))
        _show(one)
    return 0


def _pair(text: str) -> tuple[str, str]:
    first, tab, second = text.partition("\t")
    if not tab or "\t" in second:
        raise RequestError(f"{text[:60]!r} should be two texts with one tab between them")
    return first, second


def _show(found: Classified) -> None:
    if len(found.scores) == 1:
        print(f"  {found.score:.4f}")
        return
    best = sorted(found.scores.items(), key=lambda pair: -pair[1])
    rows = columns([(f"{score:.3f}", gauge(score), printable(name)) for name, score in best])
    for place, row in enumerate(rows):
        print(f"  {row}" if place == 0 else paint(f"  {row}", DIM))


def _tag(llm: LLM, given: Sequence[str], options: argparse.Namespace) -> int:
    with ReadingBar(f"{len(given):,} texts") as bar:
        found = llm.tag(given, truncate=options.truncate, progress=bar)
    if options.json:
        rows = zip(given, found, strict=True)
        print_json([{"text": t, "entities": [dataclasses.asdict(e) for e in row]} for t, row in rows])
        return 0
    colours: dict[str, str] = {}
    for text, row in zip(given, found, strict=True):
        for entity in row:
            colours.setdefault(entity.label, _COLOURS[len(colours) % len(_COLOURS)])
        print(_coloured(text, row, colours))
        cells = [(f"{e.start}-{e.end}", printable(e.label), f"{e.score:.2f}", fit(e.text, 60)) for e in row]
        for line in columns(cells, right=frozenset({0})) if cells else []:
            print(f"  {line}")
    return 0


def _coloured(text: str, row: Sequence[Entity], colours: dict[str, str]) -> str:
    """The text with each entity on a ground of its label's colour."""
    parts, at = [], 0
    for entity in row:
        parts += [printable(text[at : entity.start]), paint(printable(entity.text), colours[entity.label])]
        at = entity.end
    return "".join([*parts, printable(text[at:])])
