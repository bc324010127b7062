"""`bestiary tokenize`: the tokens of a text, as the model sees them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .. import hub
from ..errors import RequestError
from .terminal import columns, is_coloured, note, paint, print_json, printable, read_input

# Backgrounds that black text stands on, one after the other, so that neighbours differ.
_SHADES = ("30;46", "30;43", "30;42", "30;45", "30;44")
_CONTROL = "97;41"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "model", metavar="MODEL", help="a model, as for `bestiary chat`, or just its tokenizer"
    )
    parser.add_argument(
        "text", metavar="TEXT", nargs="?", help="the text; without it, or with -, standard input"
    )
    parser.add_argument(
        "--control", action="store_true", help="let spellings of control tokens be these tokens"
    )
    parser.add_argument("--bos", action="store_true", help="begin as the model's prompts do")
    parser.add_argument("--json", action="store_true", help="print ids and pieces as JSON")


def run(options: argparse.Namespace) -> int:
    """Print the text with its tokens in colours, then each token's id and piece."""
    from ..text.tokenizer import open_tokenizer

    place = Path(options.model).expanduser()
    # A folder with a tokenizer and no weights will do here.
    tokenizer = open_tokenizer(place if place.exists() else hub.resolve(options.model))
    text = read_input() if options.text in (None, "-") else options.text
    ids = tokenizer.encode(text, control=options.control)
    if options.bos:
        if tokenizer.bos is None:
            raise RequestError(f"{options.model} has no BOS token\nTry: the same without --bos")
        ids = [tokenizer.bos, *ids]
    pieces = [tokenizer.piece(token).decode("utf-8", "backslashreplace") for token in ids]
    if options.json:
        print_json({"ids": ids, "pieces": pieces})
        return 0
    special = set(tokenizer.control.values())
    paints = [_CONTROL if token in special else _SHADES[i % len(_SHADES)] for i, token in enumerate(ids)]
    if is_coloured(sys.stdout):
        print("".join(_shown(piece, code) for piece, code in zip(pieces, paints, strict=True)), end="\n\n")
    rows = columns([(str(token), "") for token in ids], right=frozenset({0})) if ids else []
    for row, piece, code in zip(rows, pieces, paints, strict=True):
        print(f"{row}  '{paint(printable(piece, keep=''), code)}'")
    note(f"{len(ids)} tokens, {len(text)} characters")
    return 0


def _shown(piece: str, code: str) -> str:
    """A piece in its colour; a line break is shown as a sign and made, since a colour ends with its line."""
    return paint("\n", "0").join(paint(printable(line), code) for line in piece.split("\n")) if piece else ""
