"""What the commands print with: colour where it is wanted, columns, sizes, errors, a bar for slow things."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import time
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from ..errors import RequestError

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID

BOLD, DIM, RED, GREEN, YELLOW, BLUE = "1", "2", "31", "32", "33", "34"

# A word with the spaces behind it, or one letter of Asia with what may not stand behind a line's break.
_ASIA = "\u2e80-\u2fff\u3040-\u9fff\uac00-\ud7af\uf900-\ufaff"
_CLOSES = "\u3001\u3002\uff0c\uff1b\uff1a\uff01\uff1f\uff09\u300b\u300d\u201d"
_PIECES = re.compile(rf"[{_ASIA}][{_CLOSES}]*\s*|[^\s{_ASIA}]+\s*|\s+")
_PATIENCE = 1.0  # seconds before a bar is drawn: what is quicker needs none


def is_coloured(stream: TextIO) -> bool:
    """Whether a stream gets colours: NO_COLOR and FORCE_COLOR decide (no-color.org), then the terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def paint(text: str, code: str, stream: TextIO | None = None) -> str:
    """The text in a colour or weight (ECMA-48 SGR), if the stream, standard output at first, takes it."""
    return f"\x1b[{code}m{text}\x1b[0m" if text and is_coloured(stream or sys.stdout) else text


def printable(text: str, keep: str = "\n") -> str:
    """The text with control characters written out, but for those to keep.

    Names come from files and answers from models, and a terminal obeys what they hold.
    """
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def complain(text: str, remedy: str | None = None) -> None:
    """Print an error to standard error: what is wrong, and below it what to try.

    A remedy may also be part of the text: its end, or its last line, which then begins with "Try:".
    """
    if remedy is not None:
        text = text.removesuffix(remedy).rstrip(". ")
    text, found, last = text.partition("\nTry: ")
    lines = printable(text).splitlines() or [""]
    print(paint("error:", RED, sys.stderr), lines[0], file=sys.stderr)
    for line in lines[1:]:
        print(f"  {line.strip()}", file=sys.stderr)
    if advice := remedy or (last if found else None):
        print(f"  {paint('try:', GREEN, sys.stderr)} {printable(advice)}", file=sys.stderr)


def note(text: str) -> None:
    """Print a line of progress or advice to standard error."""
    print(paint(printable(text), DIM, sys.stderr), file=sys.stderr)


def size(nbytes: float) -> str:
    """Bytes as a person reads them, in powers of ten as disks and downloads are counted."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} B" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} TB"


def amount(number: int) -> str:
    """A count as a person reads it: 135 k, 134.5 M, 7.2 B (thousand million)."""
    for unit, factor in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= factor:
            return f"{number / factor:.1f} {unit}"
    return str(number)


def columns(rows: Iterable[Sequence[str]], right: frozenset[int] = frozenset()) -> list[str]:
    """Rows of cells as aligned lines; the columns in `right` are aligned to the right, as numbers are."""
    table = [list(row) for row in rows]
    widths = [max(map(wide, cells)) for cells in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = [
            f"{' ' * (width - wide(cell))}{cell}" if i in right else f"{cell}{' ' * (width - wide(cell))}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def read_input() -> str:
    """All of standard input. Raises RequestError when it is not text in the encoding of this terminal."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(
            errors="strict"
        )  # the C locale would let bytes pass as halves of surrogate pairs
    try:
        return sys.stdin.read().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        wrong = f"standard input is not {error.encoding} text: byte {error.start} is an {error.reason}"
        raise RequestError(wrong) from error


def read_file(file: str) -> str:
    """All of a file. Raises RequestError when it is not UTF-8 text."""
    try:
        return (
            Path(file).expanduser().read_text("utf-8").removeprefix("\ufeff")
        )  # a mark of Windows, and no text
    except UnicodeDecodeError as error:
        raise RequestError(f"{file} is not UTF-8 text: byte {error.start} is an {error.reason}") from error


def print_json(value: object) -> None:
    """Print a value as JSON for a program to read."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def fit(text: str, width: int) -> str:
    """A text on one line of so many columns, with … where it was cut; letters of Asia take two columns."""
    line = printable(" ".join(text.split()))
    if wide(line) <= width:
        return line
    while line and wide(line) >= width:
        line = line[:-1]
    return f"{line}…"


def wrap(text: str, width: int) -> list[str]:
    """A text in lines of so many columns, broken at spaces and between letters of Asia.

    What closes a clause there is not put at the head of a line. A word that is too long stays whole.
    """
    lines, line = [], ""
    for piece in _PIECES.findall(printable(" ".join(text.split()))):
        if line and wide(line + piece.rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        line += piece.lstrip() if not line else piece
    return [*lines, line.rstrip()] if line.rstrip() or not lines else lines


def wide(text: str) -> int:
    """How many columns of a terminal a text takes: two for a letter of Asia (Unicode's annex 11)."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def gauge(share: float, width: int = 10) -> str:
    """A share of 1 as a bar of so many columns, exact to an eighth of one."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    return ("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8]).strip().ljust(width)


class LoadingBar:
    """A progress bar on standard error that appears only if the work takes long, and goes when it is done.

    Call it with bytes done and bytes in all. Where standard error is no terminal it prints one line instead.
    """

    verb = "loading"

    def __init__(self, what: str) -> None:
        self._what, self._began = what, time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._told = False

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self._began < _PATIENCE:
            return
        if not sys.stderr.isatty():
            if not self._told:
                note(self.told(total))
            self._told = True
            return
        if self._bar is None or self._task is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            shown = TextColumn(f"{self.verb} {{task.description}}"), BarColumn(), self.counted()
            self._bar = Progress(*shown, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=total)
        self._bar.update(self._task, completed=done)

    def told(self, total: int) -> str:
        """What is said where there is no terminal."""
        return f"{self.verb} {self._what}, {size(total)}"

    def counted(self) -> ProgressColumn:
        """The column that says how much is done."""
        from rich.progress import DownloadColumn

        return DownloadColumn()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


class ReadingBar(LoadingBar):
    """The same for texts that are read: call it with texts done and texts in all."""

    verb = "reading"

    def told(self, total: int) -> str:
        """What is said where there is no terminal."""
        return f"{self.verb} {self._what}"

    def counted(self) -> ProgressColumn:
        """The column that says how much is done."""
        from rich.progress import MofNCompleteColumn

        return MofNCompleteColumn()
