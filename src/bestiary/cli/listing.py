"""`bestiary list`: the systems of the roster, and the models on this machine."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import hub, roster
from ..errors import RequestError
from ..hub import Local, cache
from ..roster import Entry
from ..roster.lineage import chain, verdict
from ..roster.nearest import nearest
from ..roster.search import Search, sizes
from .labels import COLOURS, GROUPS, SHORT, chinese_name, full_name, in_chinese
from .terminal import BOLD, GREEN, columns, fit, note, paint, print_json, printable, size, wide

_HEAD = ("", "ID", "NAME", "SIZE", "USE", "LANG", "YEAR")
_NAME, _USE, _RIGHT = 2, 4, frozenset({3})  # the name gives way in a narrow terminal
_WIDE = 112  # columns from which on there is room for the class and the organisation


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("words", metavar="WORD", nargs="*", help="words that must be said of a system")
    parser.add_argument("--kind", help="decoder, encoder, encoder-decoder, prefix decoder, hosted, ...")
    parser.add_argument(
        "--size", metavar="SIZE", action="append", default=[], help="7b, '<=13b'; may be repeated"
    )
    parser.add_argument(
        "--licence", "--license", help="commercial, conditions, no, unstated, or part of a name"
    )
    parser.add_argument("--language", metavar="LANG", help="one that a system writes or reads: en, zh, ...")
    parser.add_argument("--feature", help="chat, code, math, long-context, moe, tools, ...")
    parser.add_argument("--family", help="what computes it: llama, bloom, chatglm2, ...")
    parser.add_argument("--here", action="store_true", help="list the models on this machine instead")
    parser.add_argument(
        "--html", metavar="FILE", nargs="?", const="bestiary.html", help="write a page of it: bestiary.html"
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def run(options: argparse.Namespace) -> int:
    """List the roster, all of it or what a search finds; with --here, the models that were pulled."""
    asked = Search(
        options.words, options.kind, options.size, options.licence, options.language, options.feature,
        options.family,
    )  # fmt: skip
    if options.json and options.html is not None:
        raise RequestError("--json and --html are two forms of one list; name one")
    if options.here:
        return _here(as_json=options.json)
    everything = sorted(roster.entries().values(), key=lambda entry: entry.id)
    found = [entry for entry in everything if asked.fits(entry)]
    if options.html is not None:
        return _write(Path(options.html).expanduser(), found)
    here = pulled()
    if options.json:
        print_json([_row(entry, here.get(entry.id, [])) for entry in found])
        return 0
    if not found:
        close = [name for word in options.words for name in nearest(word)]
        meant = f"did you mean {' or '.join(close[:3])}?" if close else "bestiary list shows them all"
        note(f"no system of the roster is like that; {meant}")
        return 0
    _print(found, here)
    return 0


def pulled() -> Mapping[str, list[Local]]:
    """The models on this machine by the system of the roster that they are of."""
    found: dict[str, list[Local]] = {}
    for model in hub.models():
        if (entry := roster.find(model.name.partition("@")[0])) is not None:
            found.setdefault(entry.id, []).append(model)
    return found


def size_words(counts: Iterable[int]) -> str:
    """Numbers of parameters in little room: 1.1-13B, 340M."""
    words = list(dict.fromkeys(map(_count, sorted(counts))))
    if len(words) > 2:
        words = [words[0], words[-1]]
    if len(words) == 2 and words[0][-1] == words[1][-1]:
        words[0] = words[0][:-1]
    return "-".join(words)


def _count(number: int) -> str:
    for unit, factor in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= factor:
            return f"{number / factor:.{0 if number >= 9.95 * factor else 1}f}{unit}".replace(".0", "")
    return str(number)


def _print(found: list[Entry], here: Mapping[str, list[Local]]) -> None:
    """Print a table for each group, all with the same columns, no wider than the terminal."""
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    head = _HEAD if room < _WIDE else (*_HEAD, "CLASS", "FROM")
    rows = [_cells(entry, here)[: len(head)] for entry in found]
    widths = [max(map(wide, column)) for column in zip(head, *rows, strict=True)]
    last = len(head) - 1
    gives = _NAME if last < len(_HEAD) else last
    widths[gives] = max(wide(head[gives]), min(widths[gives], room - sum(widths) - 2 * last + widths[gives]))
    print(_line(head, widths, dict.fromkeys(range(len(head)), BOLD)))
    for group, titles in GROUPS.items():
        of_group = [(entry, row) for entry, row in zip(found, rows, strict=True) if entry.group == group]
        if of_group:
            print(paint(f"{titles[in_chinese()]}: {len(of_group)}", BOLD))
        for entry, row in of_group:
            print(_line(row, widths, {0: GREEN, _USE: COLOURS[verdict(chain(entry))]}))
    note(f"USE: may it earn money; cond.: on conditions; ?: unstated{'; *: here' if here else ''}")


def _line(cells: Iterable[str], widths: Iterable[int], colours: Mapping[int, str]) -> str:
    parts = []
    for i, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        text = fit(cell, width)
        padding = " " * (width - wide(text))
        text = paint(text, colours.get(i, "0")) if i in colours else text
        parts.append(f"{padding}{text}" if i in _RIGHT else f"{text}{padding}")
    return "  ".join(parts).rstrip()


def _cells(entry: Entry, here: Mapping[str, list[Local]]) -> tuple[str, ...]:
    return (
        "*" if entry.id in here else " ",
        entry.id,
        full_name(entry, chinese=in_chinese()),
        size_words(sizes(entry)) or "-",
        SHORT[verdict(chain(entry))],
        _spoken(entry.languages),
        entry.date[:4],
        entry.kind,
        entry.organisation,
    )


def _spoken(languages: Sequence[str]) -> str:
    """The languages in little room: zh,en+2."""
    shown = [word for word in languages if word in ("zh", "en")] or languages[:1]
    more = len(languages) - len(shown)
    return ",".join(shown) + (f"+{more}" if more else "")


def _row(entry: Entry, here: list[Local]) -> dict[str, Any]:
    """What `--json` says of a system."""
    return {
        "id": entry.id,
        "name": entry.name,
        "chinese": chinese_name(entry),
        "listed": entry.listed,
        "group": entry.group,
        "kind": entry.kind,
        "family": entry.family,
        "organisation": entry.organisation,
        "date": entry.date,
        "parameters": sizes(entry),
        "licence": entry.licence.weights,
        "commercial": verdict(chain(entry)),
        "languages": entry.languages,
        "features": entry.features,
        "about": vars(entry.about),
        "checkpoints": [one.id for one in entry.checkpoints],
        "here": [{**vars(model), "path": str(model.path)} for model in here],
    }


def _write(file: Path, found: Sequence[Entry]) -> int:
    """Write the page, whole or not at all. Raises RequestError for a file that is no page of this program."""
    from .page import GENERATOR, page

    if file.is_dir() or (file.exists() and GENERATOR.encode() not in file.read_bytes()[:2000]):
        raise RequestError(
            f"{file} is there, and is no page that was made by this command\nTry: another name"
        )
    if not found:
        raise RequestError("no system of the roster is like that\nTry: bestiary list")
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        temporary.write_text(page(found), encoding="utf-8")
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    note(f"{len(found)} systems in {file}, {size(file.stat().st_size)}; it opens in any browser")
    return 0


def _here(*, as_json: bool) -> int:
    """List the embedded models that were pulled, then what the Hugging Face cache holds."""
    models = hub.models()
    if as_json:
        print_json([{**vars(model), "path": str(model.path)} for model in models])
        return 0
    if not models:
        note(f"no models in {cache.own_cache()} or {cache.hub_cache()}; bestiary pull smollm2 gets the first")
        return 0
    cells = [("NAME", "KIND", "SIZE", "")]
    cells += [(printable(m.name), m.kind, size(m.nbytes), "" if m.complete else "incomplete") for m in models]
    head, *rest = columns(cells, right=frozenset({2}))
    print("\n".join([paint(head, BOLD), *rest]))
    return 0
