"""The card of a system: what `bestiary show` says of it, from the roster alone."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from ..hub import Local
from ..roster import Checkpoint, Entry
from ..roster.lineage import Link, Node, ancestors, chain, descendants, verdict, verdicts
from ..roster.search import params
from .labels import COLOURS, COMMERCIAL, HOW, LABELS, full_name
from .listing import size_words
from .terminal import BLUE, BOLD, DIM, YELLOW, columns, paint, size, wide, wrap

_GAP = 2  # columns before a label, and between it and what it is of


def facts(entry: Entry, here: Sequence[Local]) -> dict[str, Any]:
    """What `--json` says of a system: its whole entry, and what follows from those of others."""
    links = chain(entry)
    return {
        **asdict(entry),
        "made_from": [_branch(node) for node in ancestors(entry)],
        "made_into": [_branch(node) for node in descendants(entry)],
        "checkpoints": [{**asdict(one), "parameters": params(one)} for one in entry.checkpoints],
        "licences": [{**vars(link), "system": link.system and link.system.id} for link in links],
        "verdict": verdict(links),
        "here": [{**vars(model), "path": str(model.path)} for model in here],
    }


def print_card(entry: Entry, here: Sequence[Local], *, chinese: bool, room: int) -> None:
    """Print the card, in so many columns."""
    print(f"{paint(full_name(entry, chinese=chinese), BOLD)} ({entry.id}, {entry.date})")
    _print_text(entry.about.zh if chinese else entry.about.en, room)
    if entry.instead is not None:
        print(paint(f"{LABELS['instead'][chinese]}:", YELLOW))
        _print_text(entry.instead.zh if chinese else entry.instead.en, room)
    rows = list(_rows(entry, here, chinese=chinese, room=room - _margin(chinese=chinese)))
    before = None
    for key, line, colour in rows:
        label = LABELS[key][chinese] if key != before else ""
        before = key
        padding = " " * (_margin(chinese=chinese) - _GAP - wide(label))
        print(f"{' ' * _GAP}{paint(label, DIM)}{padding}{paint(line, colour) if colour else line}".rstrip())


def licence_line(links: Sequence[Link], *, chinese: bool) -> str:
    """A chain of licences in one line: what it allows, and whose it is."""
    said = " ← ".join(f"{link.licence} ({link.name})" for link in links)
    return f"{COMMERCIAL[verdict(links)][chinese]}: {said}"


def tree(nodes: Sequence[Node], *, chinese: bool) -> Iterator[str]:
    """Lines of a tree of lineage: each system below what it was made from, or what was made from it."""
    for i, node in enumerate(nodes):
        last = i == len(nodes) - 1
        year = f", {node.system.date[:4]}" if node.system else ""
        note = f"; {node.note}" if node.note else ""
        yield f"{'└─' if last else '├─'} {node.name}: {HOW[node.how][chinese]}{year}{note}"
        for line in tree(node.below, chinese=chinese):
            yield f"{'   ' if last else '│  '}{line}"


def _margin(*, chinese: bool) -> int:
    return 2 * _GAP + max(wide(words[chinese]) for key, words in LABELS.items() if key != "instead")


def _print_text(text: str, room: int) -> None:
    for line in wrap(text, room - _GAP):
        print(f"{' ' * _GAP}{line}")


def _rows(
    entry: Entry, here: Sequence[Local], *, chinese: bool, room: int
) -> Iterator[tuple[str, str, str | None]]:
    """Yield (key of LABELS, a line, its colour)."""
    said = {
        "by": entry.organisation,
        "class": f"{entry.kind} ({', '.join(entry.family)})" if entry.family else entry.kind,
        "languages": ", ".join(entry.languages),
        "features": ", ".join(entry.features),
        "training": ", ".join(entry.training),
        "claim": entry.claim.zh if chinese else entry.claim.en,
        "proof": ", ".join(entry.claim.proof),
    }
    for key, text in said.items():
        yield from ((key, line, None) for line in wrap(text, room))
    yield from (("links", link, BLUE) for link in entry.links)
    for key, nodes in (("from", ancestors(entry)), ("into", descendants(entry))):
        yield from ((key, _cut(line, room), None) for line in tree(nodes, chinese=chinese))
    yield from (("checkpoints", line, None) for line in _weights(entry, room))
    if entry.tokenizer is not None:
        texts = (entry.tokenizer.kind, *entry.tokenizer.facts)
        yield from (("tokenizer", line, None) for line in wrap("; ".join(texts), room))
    yield from (("stops", line, None) for line in _stops(entry))
    yield from _licence_rows(entry, chinese=chinese, room=room)
    yield from (("here", line, None) for line in _here(entry, here))


def _licence_rows(entry: Entry, *, chinese: bool, room: int) -> Iterator[tuple[str, str, str | None]]:
    own, links = entry.licence, chain(entry)
    text = f"code {own.code}; weights {own.weights}; data {own.data}"
    yield from (("licence", line, None) for line in wrap(text, room))
    colour = COLOURS[verdict(links)]
    yield from (("money", line, colour) for line in wrap(licence_line(links, chinese=chinese), room))
    if verdict(links) != "yes":
        worst = next(link for link in links if link.commercial == verdict(links))
        yield from (("money", line, None) for line in wrap(worst.clause, room))
    for word, others in list(verdicts(entry).items())[1:]:
        text = f"{COMMERCIAL[word][chinese]}: {', '.join(one.id for one in others)}"
        yield from (("money", line, COLOURS[word]) for line in wrap(text, room))


def _weights(entry: Entry, room: int) -> Iterator[str]:
    """The checkpoints as a table; in a narrow terminal, what is said of each below its name."""
    if not entry.checkpoints:
        yield "-"
        return
    rows = [_weight(one) for one in entry.checkpoints]
    table = columns(rows, right=frozenset({1, 2}))
    if max(map(wide, table)) <= room:
        yield from table
        return
    for row in rows:
        yield row[0]
        for line in wrap(", ".join(filter(None, (cell.strip() for cell in row[1:]))), room - _GAP):
            yield f"{' ' * _GAP}{line}"


def _weight(one: Checkpoint) -> tuple[str, ...]:
    count = params(one)
    goes_on = f"on {' + '.join(one.base)}" if one.base else ""
    return (
        one.id,
        "?" if count is None else size_words([count]),
        f"{one.context:,} tokens" if one.context else "",
        one.form if one.form != "transformers" else "",
        f"prompt {one.prompt}" if one.prompt else "base",
        "; ".join(filter(None, (goes_on, one.licence, one.note))),
    )


def _stops(entry: Entry) -> Iterator[str]:
    """What ends an answer in each of the chat formats, by the format's name."""
    # Read as data: importing the formats would import torch.
    folder = files("bestiary") / "text" / "prompts"
    for name in dict.fromkeys(one.prompt for one in entry.checkpoints if one.prompt is not None):
        if (file := folder / f"{name}.toml").is_file():
            stops = tomllib.loads(file.read_text("utf-8")).get("stop", ())
            texts = [json.dumps(stop, ensure_ascii=False) for stop in stops]
            yield f"{name}: {' '.join(texts) or 'the end token'}"


def _here(entry: Entry, here: Iterable[Local]) -> Iterator[str]:
    found = [f"{m.name}, {size(m.nbytes)}{'' if m.complete else ', incomplete'}" for m in here]
    first = next(iter(entry.checkpoints), None)
    hosted = first is None or entry.kind == "hosted" or first.form == "unpublished"
    gets = entry.wheel is not None or not hosted
    yield from found or ["no" + (f"; bestiary pull {entry.id}" if gets else "")]


def _cut(line: str, room: int) -> str:
    from .terminal import fit

    stem = line[: len(line) - len(line.lstrip(" │└├─"))]  # what `fit` would close up
    return stem + fit(line[len(stem) :], max(room - wide(stem), 16))


def _branch(node: Node) -> dict[str, Any]:
    below = [_branch(one) for one in node.below]
    return {"name": node.name, "how": node.how, "note": node.note, "below": below}
