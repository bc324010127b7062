"""`bestiary chat`: talk to a model.

With --prompt, or with a standard input that is no terminal (all of it is then one prompt), one answer is
printed and that is all. On a terminal it is a conversation.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BestiaryError, RequestError
from ..hub import cache
from .options import (
    add_loading,
    add_model,
    add_sampling,
    add_template,
    assignment,
    folder,
    model_name,
    open_llm,
    sampling,
)
from .terminal import complain, note, printable, read_input

if TYPE_CHECKING:
    from .reader import Reader
    from .talk import Talk

_TOKENS = 1024  # of an answer: a model that repeats itself must end
_EPILOG = """\
In a conversation, /help lists the commands. Ctrl-C stops the answer, Ctrl-D leaves.
A message goes on over several lines after a \\ at a line's end, or between \"\"\" and \"\"\"."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = f"{_EPILOG}\n\n{parser.epilog}"
    add_model(parser)
    parser.add_argument("-p", "--prompt", metavar="TEXT", help="print the answer to this and exit")
    parser.add_argument("--system", metavar="TEXT", help="the system message")
    parser.add_argument("--no-history", action="store_true", help="keep nothing of what is typed")
    add_template(parser)
    add_sampling(parser)
    add_loading(parser)


def run(options: argparse.Namespace) -> int:
    """Answer once, or talk until the user leaves."""
    once = options.prompt is not None or not sys.stdin.isatty()
    prompt = options.prompt if options.prompt is not None else read_input() if once else ""
    if once and not prompt.strip():
        raise RequestError("there is no prompt\nTry: bestiary chat --prompt 'What is a llama?'")
    with open_llm(options) as llm:
        from .talk import Talk

        talk = Talk(llm, sampling(options, folder(llm), max_tokens=_TOKENS), system=options.system)
        if once:
            return 130 if _print(lambda: talk.ask(prompt, _write)) == "abort" else 0
        from .reader import reader

        history = None if options.no_history else cache.own_cache() / "chat_history"
        note(f"{model_name(options)}: /help for commands, Ctrl-C stops an answer, Ctrl-D leaves")
        _converse(talk, reader(history, [*COMMANDS]))
    return 0


def _converse(talk: Talk, read: Reader) -> None:
    """Read and answer until Ctrl-D or /exit. A user's mistake is told, and the conversation goes on."""
    while True:
        try:
            line = read()
        except EOFError:
            return
        except KeyboardInterrupt:
            note("Ctrl-D or /exit leaves")
            continue
        try:
            if line.strip() and not _obey(talk, line):
                return
        except (BestiaryError, OSError) as error:
            complain(str(error), getattr(error, "remedy", None))


def _obey(talk: Talk, line: str) -> bool:
    """Carry out a command, or else ask the model. False: the user wants to leave."""
    found = re.fullmatch(r"/([a-z?]*)(?:\s+(.*))?", line.rstrip(), re.DOTALL)
    if found is None:
        _print(lambda: talk.ask(line.strip(), _write))
        return True
    name, argument = f"/{found[1]}", found[2] or ""
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS) or [
            "/help",
            "a space in front, to say it to the model",
        ]
        raise RequestError(f"no command is called {name}\nTry: {' or '.join(near)}")
    COMMANDS[name].carry_out(talk, argument)
    return name != "/exit"


def _print(answer: Callable[[], str]) -> str:
    """Print an answer as it comes, and say why it ended where that is not plain to see."""
    reason = answer()
    sys.stdout.write("\n")
    sys.stdout.flush()
    if reason == "length":
        note("cut here: the most tokens of an answer (-n, /params max_tokens=2048), or the context is full")
    elif reason == "content_filter":
        note("the operator kept the rest to itself (content_filter)")
    elif reason == "abort":
        note("stopped")
    return reason


def _write(text: str) -> None:
    sys.stdout.write(printable(text, keep="\n\t") if sys.stdout.isatty() else text)
    sys.stdout.flush()


@dataclasses.dataclass(frozen=True)
class Command:
    """What a user can type instead of a message."""

    usage: str
    about: str
    carry_out: Callable[[Talk, str], None]


def _help(talk: Talk, argument: str) -> None:
    width = max(len(command.usage) for command in COMMANDS.values())
    for command in COMMANDS.values():
        note(f"{command.usage:{width}}  {command.about}")
    note(_EPILOG.splitlines()[1])


def _system(talk: Talk, argument: str) -> None:
    if argument:
        talk.instruct(None if argument == "-" else argument)
    note(f"system: {talk.system}" if talk.system is not None else "no system message but the model's own")


def _clear(talk: Talk, argument: str) -> None:
    talk.clear()
    note("everything said is forgotten")


def _save(talk: Talk, argument: str) -> None:
    path = _file("/save", argument)
    talk.save(path)
    note(f"{len(talk.messages)} messages in {path}")


def _load(talk: Talk, argument: str) -> None:
    talk.load(_file("/load", argument))
    note(f"{len(talk.messages)} messages; the conversation goes on")


def _file(command: str, argument: str) -> Path:
    if not argument:
        raise RequestError(f"{command} needs the name of a file\nTry: {command} talk.json")
    return Path(argument).expanduser()


def _again(talk: Talk, argument: str) -> None:
    if talk.params.greedy:
        note("the most likely token is always taken, so it is the same; /params temperature=0.7 varies it")
    _print(lambda: talk.again(_write))


def _params(talk: Talk, argument: str) -> None:
    try:
        given = [assignment(word) for word in shlex.split(argument)]
    except ValueError as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(f"{argument!r}: {error}\nTry: /params temperature=0.7 stop='[\"end\"]'") from error
    talk.params = dataclasses.replace(talk.params, **dict(given))
    for field in dataclasses.fields(talk.params):
        note(f"{field.name}={getattr(talk.params, field.name)!r}")


COMMANDS = {
    "/help": Command("/help", "this list", _help),
    "/system": Command("/system [TEXT]", "show or set the system message; - takes it away", _system),
    "/clear": Command("/clear", "forget what was said", _clear),
    "/regen": Command("/regen", "answer the last message again", _again),
    "/params": Command("/params [K=V ...]", "show or set how answers are sampled", _params),
    "/save": Command("/save FILE", "write the conversation as JSON", _save),
    "/load": Command("/load FILE", "go on with a saved conversation", _load),
    "/exit": Command("/exit", "leave, as does Ctrl-D", lambda talk, argument: None),
}
