"""`python watched.py LOG -m MODULE ARGS...` runs a module, and writes down what it opens.

An audit hook cannot be taken off again (PEP 578). Processes that it starts by sys.executable are watched
too: that is a script which runs this file. Each line of LOG: [process, event, arguments].
"""

from __future__ import annotations

import json
import os
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

_WATCHED = {
    "socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname",
    "open", "os.listdir", "os.scandir", "os.system", "os.exec", "os.remove", "os.rename", "os.mkdir",
}  # fmt: skip


def _watch(log: int) -> None:
    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in _WATCHED:
            # A descriptor, not a file object: to open one here would be an event.
            os.write(log, json.dumps([os.getpid(), event, [repr(arg) for arg in args]]).encode() + b"\n")

    sys.addaudithook(hook)


def _script(log: Path) -> str:
    """Write the script that stands for Python, beside the log."""
    script = log.with_suffix(".python")
    words = shlex.join([sys.executable, str(Path(__file__).resolve()), str(log)])
    script.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    script.chmod(0o755)
    return str(script)


def main() -> None:
    log = Path(sys.argv[1])
    sys.executable = os.environ.get("WATCHED_PYTHON") or _script(log)
    os.environ["WATCHED_PYTHON"] = sys.executable
    _watch(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
    rest = sys.argv[2:]
    while rest[0] in ("-I", "-P", "-X"):  # the child that renders templates is started so
        rest = rest[2 if rest[0] == "-X" else 1 :]
    if rest[0] == "-m":
        sys.argv, sys.path[0] = rest[1:], ""  # as `python -m` has it
        runpy.run_module(rest[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = rest
        runpy.run_path(rest[0], run_name="__main__")


if __name__ == "__main__":
    main()
