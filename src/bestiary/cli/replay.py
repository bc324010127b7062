"""`bestiary replay`: an answer of a server, computed again from what it told of itself, token for token.

The file is the server's whole answer to a request with "return_replay": true, or its "replay" alone. The same
tokens are promised where the weights are the same, and the server was started with --deterministic or this
machine computes as that one does.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..errors import RequestError
from .options import add_loading, add_model, add_template, open_llm
from .terminal import GREEN, RED, note, paint, print_json, read_file

if TYPE_CHECKING:
    from ..serve.replaying import Outcome

_SAME, _OTHER = 0, 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("file", metavar="FILE", help='an answer with a "replay", as JSON')
    add_model(parser)
    parser.add_argument("--json", action="store_true", help="print what was compared as JSON")
    add_template(parser)
    add_loading(parser)


def run(options: argparse.Namespace) -> int:
    """Compute it again and compare; 0 where every token is the same, 1 where one is not."""
    from ..files.strict_json import InvalidJSONError, parse
    from ..serve.replaying import read, replay

    try:
        said = read(parse(read_file(options.file).encode()))
    except InvalidJSONError as error:
        raise RequestError(f"{options.file} is no answer of a server: {error.reason}") from error
    if options.model is None and options.model_option is None:
        options.model = said.model
    with open_llm(options) as llm:
        found = replay(llm, said)
    if options.json:
        print_json(found.plain())
    else:
        _print(found)
    return _SAME if found.same else _OTHER


def _print(found: Outcome) -> None:
    for warning in found.warnings:
        note(warning)
    for index, (told, made) in enumerate(found.answers):
        verdict: Any = paint("same", GREEN) if told == made else paint("other", RED)
        where = "" if told == made else f" from token {_first(told, made)} on"
        print(f"answer {index}: {verdict}{where}, {len(told)} tokens")


def _first(told: list[int], made: list[int]) -> int:
    return next(
        (i for i, (a, b) in enumerate(zip(told, made, strict=False)) if a != b), min(len(told), len(made))
    )
