"""Show how far a download is, by the bytes that arrive on the disk: whatever library brings them."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

Progress = Callable[[str], None]

_PERIOD = 0.2  # seconds between two looks at the disk
_STEP = 10  # per cent between two lines in a log


@contextlib.contextmanager
def watched(folder: Path, total: int, progress: Progress | None) -> Iterator[None]:
    """Show how much of `total` bytes has come into `folder` until the block ends.

    A bar where standard error is a terminal; elsewhere a line for each tenth, through `progress`. None shows
    nothing.
    """
    if progress is None or not total:
        yield
        return
    before, over = _nbytes(folder), threading.Event()
    with _bar(total) if sys.stderr.isatty() else _lines(total, progress) as show:

        def look() -> None:
            while not over.wait(_PERIOD):
                show(min(_nbytes(folder) - before, total))

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        show(total)


def _nbytes(folder: Path) -> int:
    total = 0
    for path in folder.glob("*"):
        # A partial file is renamed when it is whole, perhaps just now.
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    shown = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(*shown, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)


@contextlib.contextmanager
def _lines(total: int, progress: Progress) -> Iterator[Callable[[int], None]]:
    told = 0

    def show(done: int) -> None:
        nonlocal told
        percent = 100 * done // total
        if percent >= told + _STEP:
            told = percent - percent % _STEP
            progress(f"{told} %")

    yield show
