"""`bestiary fill-mask`: the likeliest words behind the masks of a text."""

from __future__ import annotations

import argparse
import dataclasses

from .options import open_llm
from .terminal import BOLD, DIM, ReadingBar, columns, fit, gauge, paint, print_json, printable
from .texts import add_texts, add_truncate, room, texts


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_texts(parser, "texts with [MASK], or <mask>, as the model spells it")
    add_truncate(parser)
    parser.add_argument("--top", type=int, default=5, metavar="N", help="how many words to show (5)")


def run(options: argparse.Namespace) -> int:
    """Print the likeliest fillers of each mask."""
    given = texts(options)
    with open_llm(options) as llm, ReadingBar(f"{len(given):,} texts") as bar:
        found = llm.fill_mask(given, top=options.top, truncate=options.truncate, progress=bar)
    if options.json:
        rows = zip(given, found, strict=True)
        print_json([{"text": text, **_told(dataclasses.asdict(one))} for text, one in rows])
        return 0
    for text, one in zip(given, found, strict=True):
        print(paint(fit(text, room()), BOLD))
        for number, fillers in enumerate(one.masks, 1):
            if len(one.masks) > 1:
                print(paint(f"  mask {number}", DIM))
            cells = [(f"{f.score:.3f}", gauge(f.score), printable(f.text)) for f in fillers]
            for line in columns(cells):
                print(f"  {line}")
    return 0


def _told(found: dict[str, object]) -> dict[str, object]:
    """The text with the best fillers in, under a name that is not that of the text with the masks."""
    return {"filled": found["text"], "masks": found["masks"]}
