"""The command line: `bestiary COMMAND ...`, each command a module that is imported when it is asked for.

Exit codes:
    0    done
    1    a model or a file is damaged, unknown, or cannot be written
    2    the command line, or a value in a request, is wrong
    3    a model is not on this machine or could not be downloaded; a hosted one did not answer
    70   a defect of this program
    130  interrupted with Ctrl-C
    141  whoever read the output went away
"""

from __future__ import annotations

import argparse
import difflib
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

from ..errors import BestiaryError, HostedError, HubError, RequestError
from .terminal import complain

DONE, FAILED, USAGE, NOT_HERE, DEFECT, INTERRUPTED, NO_READER = 0, 1, 2, 3, 70, 130, 141

# In the order in which a newcomer meets them.
COMMANDS = {
    "chat": "talk to a model",
    "generate": "continue a text, a file, standard input, or many prompts from JSONL",
    "serve": "put a model behind OpenAI's API, with a page to talk to it",
    "replay": "ask again for an answer of a server, and compare every token",
    "embed": "vectors of texts, and which lines of a file are nearest",
    "classify": "what a model's head says of texts: classes, rewards, entities",
    "fill-mask": "the likeliest words behind the masks of a text",
    "score": "how likely a text is, or each of several choices after it",
    "pull": "download a model",
    "adopt": "make a model of a difference and its base, of adapters, of another program's files",
    "convert": "write a model as GGUF, packed or not, or as safetensors",
    "list": "find a system of the roster; --here: the models on this machine",
    "show": "what a system is, what it was made from, its licence; and a model's sizes, memory, tokenizer",
    "fit": "what a model needs: memory and speed in every precision, before a download",
    "licence": "may it be used: the licences from a model back to what it was made from",
    "render": "a conversation exactly as a model reads it, in the colours of who says what",
    "prove": "that a system, or a model here, computes what its authors' code does: PASS or FAIL",
    "tokenize": "the tokens of a text, with their ids, in colour",
    "bench": "speed of prompt processing and of generation (llama-bench's pp512 and tg128)",
    "env": "versions, processor, kernels, caches and variables, for a report",
}
# The first that fits counts: RequestError before its base.
_ERRORS: dict[type[Exception], int] = {
    RequestError: USAGE,
    HubError: NOT_HERE,
    HostedError: NOT_HERE,
    BestiaryError: FAILED,
    OSError: FAILED,
    MemoryError: FAILED,
}
_CODES = "exit codes: 0 done, 1 model or file, 2 usage, 3 not here, 70 defect, 130 Ctrl-C, 141 broken pipe"


class Command(NamedTuple):
    """What a module of this package offers: its options, and what it does with them, to an exit code."""

    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are two lines and name the remedy."""

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where the help is; leave with the code for usage."""
        if found := re.match(r"unrecognized arguments: (--[\w-]+)", message):
            near = difflib.get_close_matches(found[1], self._option_string_actions)
            message += f"; did you mean {near[0]}?" if near else ""
        raise RequestError(f"{message}\nTry: {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. arguments: those of the process, without its name."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "OMP_WAIT_POLICY" not in os.environ:
        # Read when torch loads its OpenMP, whose waiting threads spin thirty times as long by themselves. An
        # idle machine is as fast; on two cores with four busy loops an answer takes 7 s instead of 13.
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 shows what it can
    trace = "--traceback" in given or os.environ.get("BESTIARY_DEBUG", "0") not in ("", "0")
    try:
        return _run(given)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return INTERRUPTED
    except SystemExit as left:
        # argparse, after --help.
        return left.code if isinstance(left.code, int) else DONE
    except BrokenPipeError:
        # What is still buffered has nowhere to go either, and must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NO_READER
    except Exception as error:  # noqa: BLE001 (the last stop: one line and a code; the traceback if asked)
        if trace:
            import traceback

            traceback.print_exc()
        return _report(error)


def parser(name: str | None = None) -> argparse.ArgumentParser:
    """The parser of one command, or of `bestiary` itself."""
    if name is None:
        return _top()
    made = Parser(f"bestiary {name}", f"{COMMANDS[name][0].upper()}{COMMANDS[name][1:]}.", _CODES)
    made.add_argument("--traceback", action="store_true", help=argparse.SUPPRESS)
    _command(name).configure(made)
    return made


def _run(given: list[str]) -> int:
    at = next((i for i, word in enumerate(given) if not word.startswith("-")), len(given))
    top = _top()
    options = top.parse_args(given[:at])
    if options.version:
        from importlib.metadata import version

        print(f"bestiary {version('bestiary')}")
        return DONE
    if at == len(given):
        top.print_help()
        return USAGE if not given else DONE
    name = given[at]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise RequestError(f"no command is called {name[:80]!r}{meant}\nTry: bestiary --help")
    made = parser(name)
    try:
        # Options may stand between a model and its texts.
        return _command(name).run(made.parse_intermixed_args(given[at + 1 :]))
    finally:
        sys.stdout.flush()


def _top() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items())
    about = "Open language models: one Transformer core, no remote code."
    first = "start with:\n  bestiary pull smollm2\n  bestiary chat"
    made = Parser("bestiary", f"{about}\n\ncommands:\n{lines}", f"{first}\n\n{_CODES}")
    made.usage = "bestiary COMMAND [options]   (bestiary COMMAND --help)"
    made.add_argument("--version", action="store_true", help="print the version")
    made.add_argument("--traceback", action="store_true", help="on an error, print where it came from")
    return made


def _command(name: str) -> Command:
    """The functions of a command. Each is named here: nothing is imported by a name from outside."""
    match name:
        case "chat":
            from . import chat

            return Command(chat.configure, chat.run)
        case "generate":
            from . import generate

            return Command(generate.configure, generate.run)
        case "embed" | "classify" | "fill-mask" | "score":
            return _reading(name)
        case "list" | "show" | "fit" | "licence" | "render" | "prove":
            return _roster(name)
        case "serve" | "replay":
            return _serving(name)
        case "pull" | "adopt" | "convert":
            return _having(name)
        case "tokenize":
            from . import tokenize

            return Command(tokenize.configure, tokenize.run)
        case "bench":
            from . import bench

            return Command(bench.configure, bench.run)
        case _:
            from . import env

            return Command(env.configure, env.run)


def _serving(name: str) -> Command:
    """The functions of a command about a server."""
    if name == "serve":
        from . import serve

        return Command(serve.configure, serve.run)
    from . import replay

    return Command(replay.configure, replay.run)


def _having(name: str) -> Command:
    """The functions of a command that puts a model on this machine."""
    match name:
        case "pull":
            from . import pull

            return Command(pull.configure, pull.run)
        case "adopt":
            from . import adopt

            return Command(adopt.configure, adopt.run)
        case _:
            from . import convert

            return Command(convert.configure, convert.run)


def _roster(name: str) -> Command:
    """The functions of a command that looks a system up."""
    match name:
        case "list":
            # Not `list`: a module of a package becomes a name in it, here one that hides the builtin.
            from . import listing

            return Command(listing.configure, listing.run)
        case "show":
            from . import show

            return Command(show.configure, show.run)
        case "prove":
            from . import prove

            return Command(prove.configure, prove.run)
        case "fit":
            from . import fit

            return Command(fit.configure, fit.run)
        case "licence":
            from . import licence

            return Command(licence.configure, licence.run)
        case _:
            from . import render

            return Command(render.configure, render.run)


def _reading(name: str) -> Command:
    """The functions of a command that reads texts and writes none."""
    match name:
        case "embed":
            from . import embed

            return Command(embed.configure, embed.run)
        case "classify":
            from . import classify

            return Command(classify.configure, classify.run)
        case "fill-mask":
            from . import fill_mask

            return Command(fill_mask.configure, fill_mask.run)
        case _:
            from . import score

            return Command(score.configure, score.run)


def _report(error: Exception) -> int:
    """Print an error in a line or two, and return its exit code."""
    code = next((code for kind, code in _ERRORS.items() if isinstance(error, kind)), DEFECT)
    if isinstance(error, BestiaryError):
        complain(str(error), getattr(error, "remedy", None))
    elif isinstance(error, OSError) and error.filename is not None:
        complain(f"{error.filename}: {error.strerror}")
    elif isinstance(error, MemoryError):
        complain("there is not enough memory for this", "a smaller model, or a smaller --ctx-size")
    elif code == DEFECT:
        complain(
            f"{type(error).__name__}: {error}", "the same with BESTIARY_DEBUG=1, and report what it prints"
        )
    else:
        complain(str(error))
    return code
