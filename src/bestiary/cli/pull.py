"""`bestiary pull`: bring a model to this machine."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType

from .. import hub, roster
from ..roster import Checkpoint, Entry
from ..roster.lineage import chain
from .labels import in_chinese
from .licence import system, warning
from .terminal import note, paint, print_json, size


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "model",
        nargs="?",
        default=roster.DEFAULT,
        help="a name of the roster (smollm2, the default) or of the hub: org/name[@revision][:file.gguf]",
    )
    parser.add_argument("--revision", help="a branch, tag or commit: the same as @revision")
    parser.add_argument("--verify", action="store_true", help="check the hash of what is here already, too")
    parser.add_argument("--json", action="store_true", help="print name, path, bytes and licence as JSON")


def run(options: argparse.Namespace) -> int:
    """Pull; say where the model is, how large, and under which licence."""
    found = system(options.model)
    entry = found[0] if found else None
    if found is not None:
        _warn(*found, briefly=options.json)
    with contextlib.nullcontext() if entry and entry.wheel else _ended_by_interrupt():
        path = hub.pull(options.model, revision=options.revision, verify=options.verify, progress=note)
    licence = chain(*found)[0].licence if found else hub.licence(path)
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    nbytes = sum(file.stat().st_size for file in files)
    if options.json:
        print_json({"name": options.model, "path": str(path), "nbytes": nbytes, "licence": licence})
    else:
        note(f"{options.model}: {size(nbytes)} in {path}")
        if found is None:
            note(f"licence: {licence or 'none stated; look at its page before you use it'}")
    return 0


def _warn(entry: Entry, one: Checkpoint | None, *, briefly: bool) -> None:
    """Say before a download what the licence does not allow, to whoever waits for it."""
    links = chain(entry, one)
    if not briefly:
        note(f"licence: {' ← '.join(link.licence for link in links)}")
    for text, colour in warning(links, chinese=in_chinese()):
        print(paint(text, colour, sys.stderr), file=sys.stderr)


@contextlib.contextmanager
def _ended_by_interrupt() -> Iterator[None]:
    """Let Ctrl-C end the process at once.

    The hub's library would first finish every file it is in the middle of, for gigabytes. Nothing half-done
    can be seen after it (see hub.download), and the next pull sweeps it up.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        cursor = b"\x1b[?25h" if os.isatty(2) else b""  # the bar had hidden it
        os.write(2, cursor + b"\nstopped; files that arrived whole are kept\n")
        os._exit(130)

    before = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
