"""Write docs/cli.md from the help texts: `make docs`. A test compares the two."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator

from bestiary.cli import COMMANDS, parser
from tools.sources import ROOT

PAGE = ROOT / "docs/cli.md"
COLUMNS = "100"
HEAD = """\
# The command line

What `bestiary --help` and `bestiary COMMAND --help` print. This page is made by `make docs`: change the
commands in [src/bestiary/cli](../src/bestiary/cli), not the page.
"""


def page() -> str:
    """Return the page."""
    parts = [HEAD, f"## bestiary\n\n{_fenced(None)}"]
    parts += [f"## bestiary {name}\n\n{_fenced(name)}" for name in COMMANDS]
    return "\n".join(parts)


class Portable(argparse.RawDescriptionHelpFormatter):
    """What Python 3.13 prints, on every Python: `-n, --number N`, where 3.12 has `-n N, --number N`."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"


def _fenced(name: str | None) -> str:
    made = parser(name)
    made.formatter_class = Portable
    with _width(COLUMNS):
        return f"```text\n{made.format_help().strip()}\n```\n"


@contextlib.contextmanager
def _width(columns: str) -> Iterator[None]:
    """Give argparse, which asks for the terminal's width, always the same."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = columns
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
