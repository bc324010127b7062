"""`bestiary render`: a conversation exactly as a model reads it, and what of it a model is trained on.

Piped, the text alone is printed, to the byte. On a terminal each character has the colour of whose it is.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import hub, roster
from ..errors import HubError, RequestError
from .terminal import columns, is_coloured, note, paint, print_json, printable, read_file, read_input

if TYPE_CHECKING:
    from ..text.chat import ChatTemplate, Prompt
    from ..text.tokenizer import Tokenizer

_COLOURS = {"system": "35", "user": "36", "assistant": "32", "tools": "33", "tool": "33", "observation": "33"}
_TEMPLATE, _CONTROL, _OTHER = "90", "97;41", "34"
_SAMPLE = [
    {"role": "user", "content": "Hello!"},
    {"role": "assistant", "content": "Hello. How can I help?"},
    {"role": "user", "content": "What is a bestiary?"},
]


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "model", metavar="MODEL", help="a system of the roster, a model as for `bestiary chat`, or a format"
    )
    parser.add_argument(
        "messages", metavar="FILE", nargs="?",
        help='[{"role": "user", "content": "..."}, ...] or {"messages": [...], "tools": [...]}; '
        "- is standard input, nothing a short conversation",
    )  # fmt: skip
    parser.add_argument("--chat-template", metavar="NAME", help="a format's name, or a Jinja file")
    parser.add_argument("--train", action="store_true", help="with no answer asked for; show what is learned")
    parser.add_argument(
        "--value",
        action="append",
        default=[],
        metavar="NAME=TEXT",
        help="what the format asks for, as a date",
    )
    parser.add_argument("--ids", action="store_true", help="a line a token: its id, whose it is, its text")
    parser.add_argument("--json", action="store_true", help="print text, ids, roles, mask and stops as JSON")


def run(options: argparse.Namespace) -> int:
    """Render the conversation; say what ends an answer, and what the tokenizer adds."""
    talk = _talk(options.messages)
    template, whole = _template(options.model, options.chat_template)
    values = dict(_assigned(text) for text in options.value)
    render = partial(
        template.encode, generation=not options.train, tools=talk.get("tools"), values=values or None
    )
    try:
        prompt = render(talk["messages"])
    except RequestError:
        if options.messages is not None:
            raise
        prompt = render(_SAMPLE[:1])  # a format of one question
    if options.ids and not whole:
        raise RequestError(
            f"{options.model} is not on this machine: its tokens are not known\nTry: without --ids"
        )
    facts = _facts(template, prompt, whole)
    if options.json:
        print_json(facts)
        return 0
    if is_coloured(sys.stdout):
        print(_painted(prompt, options.train))
    else:
        sys.stdout.write(prompt.text + "\n" * (not prompt.text.endswith("\n")))
    if options.ids:
        _print_ids(template, prompt)
    _tell(facts, template, options.train)
    return 0


def _talk(file: str | None) -> dict[str, Any]:
    """The messages of a file, with the tools if it has any."""
    if file is None:
        return {"messages": _SAMPLE}
    text = read_input() if file == "-" else read_file(file)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{file} is no JSON: {error}") from error
    talk = found if isinstance(found, dict) else {"messages": found}
    if unknown := talk.keys() - {"messages", "tools", "model"}:
        raise RequestError(f"{file}: {min(unknown)!r} is not known here; messages and tools are")
    if not isinstance(talk.get("messages"), list):
        raise RequestError(f'{file} holds no messages: [{{"role": "user", "content": "..."}}, ...]')
    return talk


def _assigned(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise RequestError(f"--value {text[:80]!r} is not NAME=TEXT")
    return name, value


def _template(name: str, given: str | None) -> tuple[ChatTemplate, bool]:
    """The chat template of a model or a format, and whether the tokens are the model's own."""
    from ..text import prompts
    from ..text.templates import choose
    from ..text.tokenizer import open_tokenizer

    if given is None and name in prompts.named() and roster.find(name) is None:
        return _unseen(prompts.get(name)), False
    place = Path(name).expanduser()
    try:
        path = place if place.exists() and "/" in name else hub.resolve(name)
    except HubError:
        entry = roster.find(name)
        if entry is None:
            raise
        return _unseen(prompts.get(given or _format(entry, name))), False
    tokenizer: Tokenizer = open_tokenizer(path)
    template = choose(path, tokenizer, given)
    if template is None:
        raise RequestError(
            f"{name} has no chat template: it is a base model, or its files lack it\n"
            "Try: --chat-template NAME"
        )
    return template, True


def _format(entry: roster.Entry, name: str) -> str:
    """The format of the checkpoint that is named, or else of the system's first that has one."""
    ones = [one for one in entry.checkpoints if one.id.lower() == name.lower()] or list(entry.checkpoints)
    found = next((one.prompt for one in ones if one.prompt is not None), None)
    if found is None:
        raise RequestError(
            f"{name} is a base model: it continues text and has no form of questions and answers\n"
            f"Try: bestiary generate {name}; or --chat-template NAME"
        )
    return found


def _unseen(format_: Any) -> ChatTemplate:
    """The template of a format, with a tokenizer of bytes in place of the model's own."""
    from ..text.bare import bare
    from ..text.chat import ChatTemplate

    ends = {"bos_token": "{bos}", "eos_token": "{eos}"}
    return ChatTemplate(format_, bare([*format_.needs, *ends.values()]), tokens=ends)


def _facts(template: ChatTemplate, prompt: Prompt, whole: bool) -> dict[str, Any]:
    """All that is shown. whole: the tokens are the model's own, so there is something to say of them."""
    spelt = {id: name for name, id in template.tokenizer.control.items()}
    roles = [span.role for span in prompt.spans for _ in range(span.start, span.end)]
    return {
        "format": template.name,
        "text": prompt.text,
        "ids": prompt.ids if whole else None,
        "roles": roles if whole else None,
        "learned": prompt.learned(template.stops) if whole else None,
        "dropped": list(prompt.dropped),
        "stops": sorted(spelt.get(id, str(id)) for id in template.stops if whole or id in spelt),
        "stop_texts": list(template.stop_texts),
    }


def _painted(prompt: Prompt, train: bool) -> str:
    """The text in the colours of its roles; with --train, what is learned is underlined."""
    shown = []
    for part in prompt.parts:
        colour = (
            _CONTROL if part.is_control else _COLOURS.get(part.role or "", _OTHER if part.role else _TEMPLATE)
        )
        colour += ";4" if train and part.role == "assistant" else ""
        # A colour ends with its line, so that a terminal does not fill the rest of it.
        shown.append("\n".join(paint(printable(line), colour) for line in part.text.split("\n")))
    return "".join(shown)


def _print_ids(template: ChatTemplate, prompt: Prompt) -> None:
    """A line a token: its id, whose it is, whether it is learned, its text."""
    roles = [span.role or "-" for span in prompt.spans for _ in range(span.start, span.end)]
    marks = ["learned" if one else "" for one in prompt.learned(template.stops)]
    rows = [(str(id), role, mark) for id, role, mark in zip(prompt.ids, roles, marks, strict=True)]
    pieces = [template.tokenizer.piece(id).decode("utf-8", "backslashreplace") for id in prompt.ids]
    for row, role, piece in zip(columns(rows, right=frozenset({0})), roles, pieces, strict=True):
        print(f"{row}  '{paint(printable(piece, keep=''), _COLOURS.get(role, _TEMPLATE))}'")


def _tell(facts: dict[str, Any], template: ChatTemplate, train: bool) -> None:
    """What is to be known beside the text, on standard error."""
    ends = " or ".join(map(repr, [*facts["stops"], *facts["stop_texts"]]))
    note(f"format: {facts['format']}; an answer ends at {ends or 'the end token of its tokenizer'}")
    for i in facts["dropped"]:
        note(f"message {i} has no place in this format: none of it is read")
    if facts["ids"] is None:
        note("the model is not on this machine, so its tokens are not known; the text is exact")
        return
    before = template.tokenizer.around.starts()
    added = before and facts["ids"][: len(before)] == before and template.name != "jinja"
    counted = f"{len(facts['ids'])} tokens" + (f", {sum(facts['learned'])} of them learned" if train else "")
    note(f"{counted}; the tokenizer {'adds BOS' if added else 'adds nothing'}")
