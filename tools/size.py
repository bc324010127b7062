"""How many lines each package has, and which files and functions are too long to read at one sitting.

`python -m tools.size` prints the table; `python -m tools.check` fails on what `problems` finds.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from tools.sources import ROOT, Source, python, tracked

FILE_LINES = 400
FUNCTION_LINES = 40

# "path" or "path::Class.function" -> why it is better long. A row that is no longer needed is a problem too.
LONGER: dict[str, str] = {}


def problems(sources: Iterable[Source], longer: dict[str, str] = LONGER) -> Iterator[str]:
    """Yield one line for each file and function over its limit, and for each exception that is not needed."""
    needed = set()
    for source in sources:
        parts = [(source.path, len(source.text.splitlines()), FILE_LINES)]
        parts += [(f"{source.path}::{name}", lines, FUNCTION_LINES) for name, lines in functions(source.tree)]
        for name, lines, limit in parts:
            if lines <= limit:
                continue
            needed.add(name)
            if name not in longer:
                yield f"{name}: {lines} lines, {limit} at most (or give a reason in tools/size.py)"
    for name in sorted(set(longer) - needed):
        yield f"tools/size.py: {name} is not too long: remove it from LONGER"


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Yield (qualified name, lines with decorators and docstring) of each function, also nested ones."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = prefix + node.name
            if not isinstance(node, ast.ClassDef):
                start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                yield name, (node.end_lineno or start) - start + 1
            yield from functions(node, name + ".")
        else:
            yield from functions(node, prefix)


def table() -> Iterator[str]:
    """Yield the lines of the table: packages of src/bestiary first, then the folders beside it."""
    counted: dict[str, list[int]] = defaultdict(list)
    for path in tracked():
        if path.suffix in (".py", ".c", ".h"):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            counted[_group(path.relative_to(ROOT))].append(lines)
    yield f"{'':28}{'files':>6}{'lines':>8}{'longest':>9}"
    for group, lengths in sorted(counted.items(), key=lambda item: (not item[0].startswith("src"), item[0])):
        yield f"{group:28}{len(lengths):6}{sum(lengths):8}{max(lengths):9}"
    package = [count for group, lengths in counted.items() if group.startswith("src") for count in lengths]
    yield f"{'src/bestiary in all':28}{len(package):6}{sum(package):8}{max(package, default=0):9}"


def _group(path: Path) -> str:
    depth = 3 if path.parts[0] == "src" else 2
    folder = path.parent.parts[:depth] or (".",)
    return "/".join(folder)


if __name__ == "__main__":
    print("\n".join([*table(), *problems(python("src", "tests", "tools", "bench", "examples"))]))
