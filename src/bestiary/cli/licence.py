"""`bestiary licence`: the licences that a model's weights stand under, back to what they were made from."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from .. import hub, roster
from ..roster import Checkpoint, Entry
from ..roster.lineage import Link, chain, verdict, verdicts
from .labels import COLOURS, COMMERCIAL, HOW, full_name, in_chinese
from .options import add_model, model_name
from .terminal import BOLD, DIM, note, paint, print_json, printable, wrap
from .texts import room

_ADVICE = "This repeats what was published, and is no legal advice."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_model(parser)
    parser.add_argument("--language", choices=("en", "zh"), help="of the labels (default: the locale's)")
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def run(options: argparse.Namespace) -> int:
    """Print each licence from the weights to their roots, with its clause, and what all allow together."""
    name = model_name(options)
    found = system(name)
    if found is None:
        return _stated(name, as_json=options.json)
    entry, one = found
    links = chain(entry, one)
    if options.json:
        print_json(_facts(entry, one, links))
        return 0
    chinese = in_chinese(options.language)
    title = one.id if one is not None else full_name(entry, chinese=chinese)
    print(f"{paint(title, BOLD)}: {paint(COMMERCIAL[verdict(links)][chinese], COLOURS[verdict(links)])}")
    _print_chain(links, chinese=chinese)
    _print_said("data", DIM, entry.licence.data)
    _print_said("code", DIM, entry.licence.code)
    for word, others in list(verdicts(entry).items())[1:] if one is None else ():
        _print_said(COMMERCIAL[word][chinese], COLOURS[word], ", ".join(other.id for other in others))
    note(_ADVICE)
    return 0


def system(name: str) -> tuple[Entry, Checkpoint | None] | None:
    """The system of the roster that a name means, and its checkpoint where it names one."""
    repo = name.split("@", maxsplit=1)[0].split(":", maxsplit=1)[0]
    entry = roster.find(repo)
    if entry is None:
        return None
    return entry, next((one for one in entry.checkpoints if one.id.lower() == repo.lower()), None)


def warning(links: Sequence[Link], *, chinese: bool) -> list[tuple[str, str]]:
    """What must be said before weights are downloaded: (text, colour), none where commercial use is free."""
    word = verdict(links)
    if word == "yes":
        return []
    link = next(link for link in links if link.commercial == word)
    return [(f"{COMMERCIAL[word][chinese]} ({link.name}: {link.licence})", COLOURS[word]), (link.clause, DIM)]


def _print_chain(links: Sequence[Link], *, chinese: bool) -> None:
    for link in links:
        made = "" if link.how is None else f" ({HOW[link.how][chinese]})"
        print(f"{'' if link.how is None else '← '}{paint(link.name, BOLD)}{made}: {link.licence}")
        for text, colour in (
            (COMMERCIAL[link.commercial][chinese], COLOURS[link.commercial]),
            (link.clause, None),
        ):
            for line in wrap(text, room(4)):
                print(f"    {paint(line, colour) if colour else line}")


def _print_said(what: str, colour: str, said: str) -> None:
    first, *others = wrap(f"{what}: {said}", room(4))
    print("\n    ".join([f"{paint(what, colour)}{first.removeprefix(what)}", *others]))


def _facts(entry: Entry, one: Checkpoint | None, links: Sequence[Link]) -> dict[str, Any]:
    rows = [{**vars(link), "system": link.system.id if link.system else None} for link in links]
    return {
        "system": entry.id,
        "checkpoint": one.id if one else None,
        "verdict": verdict(links),
        "chain": rows,
        "code": entry.licence.code,
        "data": entry.licence.data,
        "checkpoints": {word: [other.id for other in others] for word, others in verdicts(entry).items()},
    }


def _stated(name: str, *, as_json: bool) -> int:
    """Say what the folder of a model that is on no roster says of itself."""
    path = hub.resolve(name)
    said = hub.licence(path)
    if as_json:
        print_json({"system": None, "path": str(path), "stated": said})
        return 0
    print(f"{paint(printable(name), BOLD)}: {printable(said) if said else 'states no licence'}")
    note(f"this is what {printable(str(path))} says; the roster does not know it. {_ADVICE}")
    return 0
