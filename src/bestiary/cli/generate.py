"""`bestiary generate`: continue a text, or answer it (an encoder-decoder), or many prompts from a JSONL file.

A line of JSONL is {"prompt": "..."} or {"messages": [...]}; other keys are kept. What comes out is the same
line with "text", "finish_reason", "prompt_tokens" and "tokens", or with "error", in the order of the input.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RequestError
from .options import (
    add_beams,
    add_loading,
    add_model,
    add_sampling,
    add_template,
    beams,
    folder,
    open_llm,
    sampling,
)
from .terminal import note, print_json, printable, read_file, read_input

if TYPE_CHECKING:
    from ..run.llm import LLM
    from ..run.params import BeamParams, SamplingParams

_TOKENS = 256


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_model(parser)
    parser.add_argument(
        "text", metavar="TEXT", nargs="?", help="the text; without it, or with -, standard input"
    )
    parser.add_argument("-p", "--prompt", metavar="TEXT", help="the same as TEXT")
    parser.add_argument("-f", "--file", metavar="FILE", help="take the text from a file")
    parser.add_argument("--jsonl", metavar="FILE", help='many: a {"prompt"} or {"messages"} a line')
    parser.add_argument(
        "--out", metavar="FILE", help="where --jsonl writes; the same again goes on where it stopped"
    )
    parser.add_argument("--json", action="store_true", help="print text, tokens and why it ended as JSON")
    add_template(parser)
    add_sampling(parser)
    add_beams(parser)
    add_loading(parser)


def run(options: argparse.Namespace) -> int:
    """Continue one text as it comes, or a file of prompts."""
    if options.model_option is not None and options.text is None:
        # With --model, the one word that stands alone is the text.
        options.model, options.text = None, options.model
    given = (options.text, options.prompt, options.file, options.jsonl)
    if len(sources := [option for option in given if option is not None]) > 1:
        raise RequestError(f"one text at a time: TEXT, --file or --jsonl, not {len(sources)} of them")
    if (options.jsonl is None) != (options.out is None):
        raise RequestError("--jsonl and --out go together\nTry: --jsonl prompts.jsonl --out answers.jsonl")
    if options.jsonl is not None:
        if options.beams is not None:
            raise RequestError("--beams searches for one text at a time, not for --jsonl")
        from .batch import Batch

        batch = Batch(Path(options.jsonl), Path(options.out))
        with open_llm(options) as llm:
            return batch.run(llm, sampling(options, folder(llm), max_tokens=_TOKENS))
    text = _text(options)
    with open_llm(options) as llm:
        if options.beams is not None:
            return _searched(llm, text, beams(options, folder(llm), max_tokens=_TOKENS), as_json=options.json)
        params = sampling(options, folder(llm), max_tokens=_TOKENS)
        return _as_json(llm, text, params) if options.json else _as_it_comes(llm, text, params)


def _text(options: argparse.Namespace) -> str:
    if options.file is not None:
        return read_file(options.file)
    text = options.text if options.prompt is None else options.prompt
    if text not in (None, "-"):
        return str(text)
    if sys.stdin.isatty():
        note("reading the text from this terminal; Ctrl-D ends it")
    return read_input()


def _as_json(llm: LLM, text: str, params: SamplingParams) -> int:
    print_json(dataclasses.asdict(llm.generate(text, params)[0]))
    return 0


def _searched(llm: LLM, text: str, params: BeamParams, *, as_json: bool) -> int:
    """Print the best answers that beams find: as JSON with their scores, or as lines of text."""
    found = llm.beam_search(text, params)[0]
    if as_json:
        print_json(dataclasses.asdict(found))
        return 0
    keep = "\n\t" if sys.stdout.isatty() else None
    for one in found.outputs:
        print(one.text if keep is None else printable(one.text, keep=keep))
    return 0


def _as_it_comes(llm: LLM, text: str, params: SamplingParams) -> int:
    """Print each answer while it is computed; several are told apart by a line on standard error."""
    keep = "\n\t" if sys.stdout.isatty() else None
    reason: str | None = None
    try:
        for chunk in llm.stream(text, params):
            sys.stdout.write(chunk.text if keep is None else printable(chunk.text, keep=keep))
            if chunk.finish_reason is not None:
                reason = chunk.finish_reason
                sys.stdout.write("\n")
            sys.stdout.flush()
            if reason is not None and params.n > 1:
                note(f"({chunk.index + 1} of {params.n}: {reason})")
                reason = None
    except KeyboardInterrupt:
        note("stopped")
        return 130
    if reason == "length" and sys.stdout.isatty():
        note("cut here: the most tokens that were asked for (-n), or the context is full")
    return 0
