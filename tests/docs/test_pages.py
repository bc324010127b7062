"""Every command and script in the README and in docs/ runs and prints what the page says."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs.blocks import Block, blocks, matches
from tools.sources import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
SECONDS = 100  # a command that takes longer is no example


def _found() -> Iterator[Block]:
    for page in PAGES:
        if page.is_file():
            yield from blocks(page.relative_to(ROOT).as_posix(), page.read_text(encoding="utf-8"))


BLOCKS = list(_found())


# A model's name in the roster: the marker of tests that need it.
MARKS = {"smollm2": pytest.mark.default_model, "minilm": pytest.mark.minilm}


def _parameter(block: Block) -> object:
    return pytest.param(block, id=str(block), marks=[MARKS[name] for name in block.needs])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all pages: what one block writes, a later one may read."""
    made = tmp_path_factory.mktemp("pages")
    for stamp in (".made", ".run"):
        (made / stamp).touch()  # make has nothing to install
    return made


def _run(arguments: list[str], folder: Path, where: Path) -> subprocess.CompletedProcess[str]:
    programs = Path(sys.executable).parent
    # A make on a page runs what is installed here, and installs nothing.
    make = f"-- VENV={folder} BIN={programs}"
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "MAKEFLAGS": make}
    environment.pop("MAKELEVEL", None)
    return subprocess.run(
        arguments,
        cwd=where,
        env={**environment, "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def _check(block: Block, ran: subprocess.CompletedProcess[str], expected: str | None) -> None:
    assert ran.returncode == block.status, f"{block}: status {ran.returncode}\n{ran.stdout}"
    if expected is not None:
        assert matches(expected, ran.stdout), f"{block} says:\n{expected}\nand it prints:\n{ran.stdout}"


@pytest.mark.parametrize("block", [_parameter(b) for b in BLOCKS if not (b.quoted or b.reason_not_run)])
def test_the_block_runs(block: Block, folder: Path) -> None:
    if block.language == "console":
        commands = list(block.commands())
        assert commands, f"{block}: no line starts with `$ `"
        for command, expected in commands:
            where = ROOT if command.startswith("make ") else folder
            _check(block, _run(["bash", "-c", command], folder, where), expected)
    elif block.language == "python":
        script = folder / "script.py"
        script.write_text(block.text, encoding="utf-8")
        _check(block, _run([sys.executable, script.name], folder, folder), block.output)
    else:
        case = doctest.DocTestParser().get_doctest(block.text, {}, str(block), block.page, block.line)
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        assert case.examples
        assert runner.run(case).failed == 0


def test_what_is_not_run_could_be() -> None:
    """Its make targets and sub-commands exist: a renamed command is noticed where it cannot be run."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))
    known = set(
        re.findall(r"^## bestiary (\S+)", (ROOT / "docs/cli.md").read_text(encoding="utf-8"), re.MULTILINE)
    )
    for block in BLOCKS:
        for command, _ in block.commands() if block.language == "console" and block.reason_not_run else ():
            word, _, rest = command.partition(" ")
            first = rest.split(" ")[0]
            if word == "make" and first:
                assert first in targets, f"{block}: make has no target {first!r}"
            if word == "bestiary" and not first.startswith("-"):
                assert first in known, f"{block}: bestiary has no sub-command {first!r}"


def test_quotations_stand_in_their_files() -> None:
    for block in BLOCKS:
        if block.quoted:
            text = (ROOT / block.quoted).read_text(encoding="utf-8")
            assert matches(f"...\n{block.text}\n...", text), f"{block} is not what {block.quoted} says"


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            path = unquote(target.partition("#")[0])
            if path and "://" not in path and not path.startswith("mailto:"):
                assert (page.parent / path).exists(), f"{page.name}: {target} leads nowhere"


def test_the_readme_shows_the_commands_and_the_library() -> None:
    """A README without a block that runs would pass everything above."""
    run = [block for block in BLOCKS if block.page == "README.md" and not block.reason_not_run]
    assert {"console", "python"} <= {block.language for block in run}
