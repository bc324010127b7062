"""`bestiary prove`: a parity certificate of a system, of a checkpoint here, or of the whole roster."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .. import hub, roster
from ..errors import HubError, RequestError
from .terminal import BOLD, GREEN, RED, YELLOW, ReadingBar, columns, note, paint, print_json, printable

if TYPE_CHECKING:
    from ..prove.finding import Certificate, Column

_SIGNS = {True: ("PASS", GREEN), False: ("FAIL", RED), None: ("open", YELLOW)}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help="a system of the roster, a path, or a hub name that is here"
    )
    parser.add_argument("--all", action="store_true", help="the table of the whole roster")
    parser.add_argument(
        "--references", metavar="DIR", help="a folder of further reference results; also $BESTIARY_REFERENCES"
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON, with every check")


def run(options: argparse.Namespace) -> int:
    """Show what holds; leave with 1 if something does not."""
    if options.all == (options.model is not None):
        raise RequestError("name a system or a model, or --all\nTry: bestiary prove --all")
    found = _all(options) if options.all else _one(options.model, options.references)
    if options.json:
        print_json([certificate.json() for certificate in found])
    elif options.all:
        _print_table(found)
    else:
        for certificate in found:
            _print(certificate)
    return 1 if any(certificate.holds is False for certificate in found) else 0


def _all(options: argparse.Namespace) -> list[Certificate]:
    """The certificates of every system, with a bar as they come."""
    from ..prove.places import Places
    from ..prove.row import certificate

    places, entries = Places.of(options.references), list(roster.entries().values())
    with ReadingBar("reference results") as bar:
        found = []
        for i, entry in enumerate(entries):
            bar(i, len(entries))
            found.append(certificate(entry, places))
    return found


def _one(name: str, references: str | None) -> list[Certificate]:
    """The certificate of a system, and of its checkpoint where that is on this machine."""
    from ..prove import model, row
    from ..prove.places import Places

    entry = None if Path(name).expanduser().exists() and "/" in name else roster.find(name)
    found = [] if entry is None else [row.certificate(entry, Places.of(references))]
    try:
        path = hub.resolve(name)
    except HubError:
        if entry is None:
            raise
        note(f"{name} is not on this machine: its own weights are not looked at")
        return found
    return [*found, model.certificate(name, path)]


def _print_table(found: list[Certificate]) -> None:
    """A line a system, its columns, and why one does not hold; then how many hold."""
    from ..prove.row import COLUMNS

    listed = {entry.id: entry for entry in roster.entries().values()}
    head = ("SYSTEM", *(name.upper() for name in COLUMNS), "LARGEST ERROR")
    cells = [head, *((one.name, *(_sign(column) for column in one.columns), _error(one)) for one in found)]
    lines = columns(cells)
    print(paint(lines[0], BOLD))
    for line, one in zip(lines[1:], found, strict=True):
        print(_coloured(line))
        if instead := listed[one.name].instead:
            print(paint(f"    {instead.en}", YELLOW))
        for what in _wrong(one):
            print(f"    {printable(what)}")
    print(paint(f"\n{_counted([one for one in found if listed[one.name].group == 'list'])}", BOLD))


def _counted(found: list[Certificate]) -> str:
    """How many systems of the list hold, fail, are open, or cannot be shown whole, as their rows say."""
    entries = roster.entries()
    partly = [one for one in found if entries[one.name].instead and one.holds is not False]
    whole = [one.holds for one in found if one not in partly]
    return (
        f"Of the {len(found)} systems of the list {whole.count(True)} hold in every column, "
        f"{whole.count(None)} are open in some, {len(partly)} cannot be shown whole, "
        f"{whole.count(False)} fail."
    )


def _sign(column: Column) -> str:
    return "-" if column.holds and not column.findings else _SIGNS[column.holds][0]


def _coloured(line: str) -> str:
    for word, code in _SIGNS.values():
        line = line.replace(f" {word}", f" {paint(word, code)}")
    return line


def _error(certificate: Certificate) -> str:
    from ..prove.finding import worst

    found = [column.error for column in certificate.columns if column.error is not None]
    return f"{worst(found):.1e}" if found else ""


def _wrong(certificate: Certificate) -> list[str]:
    """What does not hold, or is open, a line each."""
    return [
        f"{column.name}: {finding.what}: {finding.note or _measured(finding.error, finding.allowed)}"
        for column in certificate.columns
        for finding in column.findings
        if finding.holds is not True
    ]


def _measured(error: float | None, allowed: float | None) -> str:
    return (
        "" if error is None or allowed is None else f"largest difference {error:.2g}, allowed {allowed:.2g}"
    )


def _print(certificate: Certificate) -> None:
    word, code = _SIGNS[certificate.holds]
    print(f"{paint(printable(certificate.name), BOLD)}  {paint(word, code)}")
    rows, codes = [], list[str | None]()
    for column in certificate.columns:
        if not column.findings:
            rows.append((column.name, "-", column.empty, ""))
            codes.append(None)
        for one in column.findings:
            word, code = _SIGNS[one.holds]
            rows.append((column.name, word, one.what, one.note or _measured(one.error, one.allowed)))
            codes.append(code)
    for line, row, painted in zip(columns(rows), rows, codes, strict=True):
        shown = printable(line)
        print(f"  {shown.replace(f' {row[1]} ', f' {paint(row[1], painted)} ', 1) if painted else shown}")
    if certificate.note:
        note(certificate.note)
