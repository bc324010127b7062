"""The fenced blocks of a Markdown page, and how each is kept true.

    ```console    what follows `$ ` is a command (a trailing backslash goes on); the lines below it, if any,
                  are what it prints, on both streams
    ```python     a script of its own; a ```text block right below it, if any, is what it prints
    ```pycon      a doctest

A comment on the line above a fence says what is different about it:

    <!-- run: needs smollm2 -->          left out where this model was never pulled
    <!-- run: exits with 2 -->           a command that fails, on purpose
    <!-- not run: it downloads 16 GB --> with a reason; its `make` targets and sub-commands must still exist
    <!-- from src/bestiary/models.py --> a quotation: its lines stand in that file

In expected output and in quotations `...` stands for any text, and alone on a line for any lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from textwrap import dedent

CHECKED = ("console", "python", "pycon")


@dataclass(frozen=True)
class Block:
    """One fenced block: where it starts, its language, its text, the comment above it, and what it prints."""

    page: str
    line: int
    language: str
    text: str
    comment: str = ""
    output: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def quoted(self) -> str | None:
        """The file that the block quotes."""
        return self.comment.removeprefix("from ").strip() if self.comment.startswith("from ") else None

    @property
    def reason_not_run(self) -> str | None:
        """Why the block is not run; None where it is."""
        return self.comment.removeprefix("not run:").strip() if self.comment.startswith("not run") else None

    @property
    def needs(self) -> tuple[str, ...]:
        """The models that are wanted, by their names in the roster."""
        return tuple(re.findall(r"needs (\w+)", self.comment)) if self.comment.startswith("run:") else ()

    @property
    def status(self) -> int:
        """The exit status that is wanted."""
        found = re.search(r"exits with (\d+)", self.comment)
        return int(found[1]) if found else 0

    def commands(self) -> Iterator[tuple[str, str | None]]:
        """Yield (command, what it should print or None) of a console block."""
        joined = re.sub(r"\\\n\s*", "", self.text)
        for part in re.split(r"^\$ ", joined, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            yield command, printed if printed.strip() else None


def blocks(page: str, text: str) -> Iterator[Block]:
    """Yield the blocks of a page that are checked.

    Raises:
        ValueError: a fence is not closed, or a comment above a fence is none of those above.
    """
    found = list(_fences(page, text))
    for index, block in enumerate(found):
        if block.language not in CHECKED:
            continue
        if not re.fullmatch(r"|run: .+|not run: .+|from \S+", block.comment):
            raise ValueError(
                f"{block}: the comment {block.comment!r} is none that tests/docs/blocks.py knows"
            )
        after = found[index + 1] if index + 1 < len(found) else None
        end = block.line + block.text.count("\n") + 1
        if block.language == "python" and after and after.language == "text" and after.line - end <= 2:
            block = replace(block, output=after.text)
        yield block


def _fences(page: str, text: str) -> Iterator[Block]:
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        opened = re.match(r"( *)(`{3,})(\w*)$", lines[number])
        number += 1
        if not opened:
            continue
        start = number
        while number < len(lines) and lines[number].strip() != opened[2]:
            number += 1
        if number == len(lines):
            raise ValueError(f"{page}:{start}: this fence is not closed")
        above = lines[start - 2].strip() if start > 1 else ""
        comment = re.fullmatch(r"<!-- (.*?) -->", above)
        body = dedent("\n".join(lines[start:number])) + "\n"
        yield Block(page, start, opened[3], body, comment[1] if comment else "")
        number += 1


def matches(expected: str, actual: str) -> bool:
    """Tell whether a text is what was written down; `...` is what may differ, blank ends do not count."""
    lines = []
    for line in expected.strip().splitlines():
        whole = line.strip() == "..."
        lines.append(
            r"(?:.*\n)*?" if whole else re.escape(line.rstrip()).replace(r"\.\.\.", ".*") + r"[ \t]*\n"
        )
    return re.fullmatch("".join(lines), actual.strip("\n") + "\n") is not None
