"""The rules of this repository, checked: `python -m tools.check`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from tools import families, forbidden, layers, size, words
from tools.sources import python, tracked


def problems() -> Iterator[str]:
    """Yield one line for each rule broken."""
    yield from layers.problems(python("src"))
    yield from forbidden.problems(python("src"))
    yield from size.problems(python("src", "tests", "tools", "bench", "examples"))
    yield from words.problems(tracked())
    yield from families.problems()


if __name__ == "__main__":
    found = list(problems())
    print("\n".join(found) or "imports, forbidden calls, sizes, names and families: all as they should be")
    sys.exit(bool(found))
