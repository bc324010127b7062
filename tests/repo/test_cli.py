"""The command line starts quickly and its documented help is the help it prints."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bestiary.cli import COMMANDS, parser
from tools import cli_docs

# Each takes longer to import than a help text may take to appear.
HEAVY = ("torch", "numpy", "transformers", "tokenizers", "sentencepiece", "huggingface_hub", "jinja2", "rich")


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom bestiary.cli import main\n"
        "status = main(['--help'])\n"
        f"print([name for name in {HEAVY} if name in sys.modules], status, file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stderr == "[] 0\n"
    assert "usage: bestiary" in ran.stdout


@pytest.mark.parametrize("module", ["bestiary.cli.tokenize", "bestiary.text.tokenizer", "bestiary.hub"])
def test_tokens_need_no_torch(module: str) -> None:
    script = f"import sys, {module}\nprint('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def test_the_page_of_commands_is_what_they_print() -> None:
    written = cli_docs.PAGE.read_text(encoding="utf-8")
    assert written == cli_docs.page(), "the help texts have changed: run `make docs`"


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_the_program_prints_the_help_of_its_parser(
    command: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is made from the parsers; the program must print theirs."""
    monkeypatch.setenv("COLUMNS", cli_docs.COLUMNS)
    arguments = [sys.executable, "-m", "bestiary", *([command] if command else []), "--help"]
    ran = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert ran.stderr == ""
    assert ran.stdout == parser(command).format_help()
    assert f"\n## bestiary{' ' + command if command else ''}\n" in cli_docs.page()
