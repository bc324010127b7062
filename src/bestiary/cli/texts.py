"""Where commands that read texts take them from: arguments, a file with a text a line, standard input."""

from __future__ import annotations

import argparse
import shutil
import sys

from ..errors import RequestError
from .options import add_loading
from .terminal import note, read_file, read_input

_LEAST = 16  # columns of a text; a line goes on below where a terminal is narrower


def add_texts(parser: argparse.ArgumentParser, what: str = "texts") -> None:
    """The model, the texts, and how to load and print."""
    about = "a name (minilm), a path to a model's folder, org/name[@revision], or a hosted model"
    parser.add_argument("model", metavar="MODEL", help=about)
    parser.add_argument(
        "texts", metavar="TEXT", nargs="*", help=f"{what}; without any, or with -, standard input, one a line"
    )
    parser.add_argument("-f", "--file", metavar="FILE", help=f"take {what} from a file, one a line")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(model_option=None)
    add_loading(parser)


def add_truncate(parser: argparse.ArgumentParser) -> None:
    """What to do with a text that is too long."""
    parser.add_argument("--truncate", action="store_true", help="cut what is longer than the model reads")


def texts(options: argparse.Namespace) -> list[str]:
    """The texts that were given. Raises RequestError for none, and for two sources of them."""
    if options.texts and options.file is not None:
        raise RequestError("texts come from the command line or from --file, not from both")
    if options.texts not in ([], ["-"]):
        return list(options.texts)
    every = _split(_piped() if options.file is None else read_file(options.file))
    if not (found := _filled(every)):
        raise RequestError("there is no text\nTry: give one, or --file FILE with one a line")
    if left := len(every) - len(found):
        # A result a line would not stand beside its line otherwise, and nobody would see why.
        note(f"{left} of {len(every)} lines hold nothing and are left out")
    return found


def lines(file: str) -> list[str]:
    """The lines of a file that hold something. Raises RequestError for none, and where it is not UTF-8."""
    if found := _filled(_split(read_file(file))):
        return found
    raise RequestError(f"{file} holds no text")


def room(taken: int = 0) -> int:
    """Columns for a text beside those taken: enough to know it by, and all of it where no terminal is."""
    return max(_LEAST, shutil.get_terminal_size().columns - taken) if sys.stdout.isatty() else 10_000


def _piped() -> str:
    if sys.stdin.isatty():
        note("reading texts from this terminal, one a line; Ctrl-D ends them")
    return read_input()


def _split(text: str) -> list[str]:
    """Lines as other programs count them: str.splitlines also cuts at form feeds and at U+2028."""
    return text.rstrip("\n").split("\n")


def _filled(every: list[str]) -> list[str]:
    return [line for line in every if line.strip()]
