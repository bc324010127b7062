"""`bestiary score`: how likely a text is to a model, or each of several choices after it."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import RequestError
from .options import open_llm
from .terminal import BOLD, DIM, ReadingBar, columns, fit, note, paint, print_json
from .texts import add_texts, room, texts

if TYPE_CHECKING:
    from ..run.findings import Scored

_HEAD = ("logprob", "tokens", "a token", "a byte", "perplexity")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_texts(parser)
    parser.add_argument(
        "--choice",
        action="append",
        metavar="TEXT",
        help="score this after TEXT, as written, with its space; may be repeated",
    )


def run(options: argparse.Namespace) -> int:
    """Print the log-likelihood of each text, or of each choice, the likeliest choice first."""
    given = texts(options)
    if options.choice and len(given) != 1:
        raise RequestError(f"--choice goes after one text, and {len(given)} were given")
    with open_llm(options) as llm, ReadingBar(f"{len(given):,} texts") as bar:
        found = llm.score(given[0] if options.choice else given, choices=options.choice, progress=bar)
    if options.json:
        print_json([_told(one) for one in found])
        return 0
    if options.choice:
        print(paint(fit(given[0], room()), BOLD))
        found = sorted(found, key=lambda one: -one.logprob)
    _show(found)
    note("natural logarithms; the best by the sum first" if options.choice else "natural logarithms")
    return 0


def _told(found: Scored) -> dict[str, object]:
    more = {name: getattr(found, name) for name in ("perplexity", "per_token", "per_character", "per_byte")}
    return {**dataclasses.asdict(found), **more}


def _show(found: Sequence[Scored]) -> None:
    cells = [
        (
            f"{s.logprob:.2f}",
            str(len(s.logprobs)),
            f"{s.per_token:.2f}",
            f"{s.per_byte:.3f}",
            f"{s.perplexity:.1f}",
        )
        for s in found
    ]
    head, *rows = columns([_HEAD, *cells], right=frozenset(range(len(_HEAD))))
    print(paint(head, DIM))
    for row, one in zip(rows, found, strict=True):
        print(f"{row}  {fit(one.text, room(len(row) + 2))}")
