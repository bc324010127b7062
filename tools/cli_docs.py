"""Write docs/cli.md from the help texts: `make docs`. A test compares the two."""

from __future__ import annotations

import os
import re

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


def _fenced(name: str | None) -> str:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = COLUMNS  # argparse asks for the width of the terminal
    try:
        text = parser(name).format_help()
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
    return f"```text\n{portable(text).strip()}\n```\n"


def portable(text: str) -> str:
    """Return a help text as Python 3.13 prints it: `-n, --name N`, where 3.12 has `-n N, --name N`."""
    return re.sub(r"^(  -\w) (\S+)(, --[\w-]+) \2", r"\1\3 \2", text, flags=re.MULTILINE)


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
