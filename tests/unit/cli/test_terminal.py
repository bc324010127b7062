"""What is printed: colours, columns, amounts, errors, the bar."""

from __future__ import annotations

import io
import sys

import pytest

from bestiary.cli import terminal


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("variables", "on_terminal", "in_file"),
    [
        ({"TERM": "xterm"}, True, False),
        ({"TERM": "dumb"}, False, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, True, True),
        ({"TERM": "xterm", "FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
    ],
)
def test_colours(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], on_terminal: bool, in_file: bool
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert terminal.is_coloured(_Terminal()) is on_terminal
    assert terminal.is_coloured(io.StringIO()) is in_file
    assert terminal.paint("x", terminal.RED, _Terminal()) == ("\x1b[31mx\x1b[0m" if on_terminal else "x")
    assert terminal.paint("", terminal.RED, _Terminal()) == ""


def test_amounts() -> None:
    sizes = [terminal.size(n) for n in (0, 999, 1000, 98_362_432, 3.35e9, 7e12)]
    assert sizes == ["0 B", "999 B", "1.0 kB", "98.4 MB", "3.4 GB", "7.0 TB"]
    assert [terminal.amount(n) for n in (0, 999, 35_136, 134_515_008, 7_241_732_096)] == [
        "0",
        "999",
        "35.1 k",
        "134.5 M",
        "7.2 B",
    ]


def test_columns() -> None:
    rows = [("a", "10", "x"), ("long", "5", "")]
    assert terminal.columns(rows, right=frozenset({1})) == ["a     10  x", "long   5"]
    assert terminal.columns([]) == []


def test_control_characters_are_written_out() -> None:
    assert terminal.printable("a\x1b[2J\r\x9b\n\t€\u202e") == "a\\x1b[2J\\r\\x9b\n\\t€\\u202e"
    assert terminal.printable("\t\n", keep="\t") == "\t\\n"


@pytest.mark.parametrize(
    ("text", "remedy", "printed"),
    [
        ("wrong", None, "error: wrong\n"),
        ("wrong.\nTry: this", None, "error: wrong.\n  try: this\n"),
        ("f: is cut. Pull it again", "Pull it again", "error: f: is cut\n  try: Pull it again\n"),
        ("several:\n  one\n  two", None, "error: several:\n  one\n  two\n"),
        ("", None, "error: \n"),
    ],
)
def test_errors(capsys: pytest.CaptureFixture[str], text: str, remedy: str | None, printed: str) -> None:
    terminal.complain(text, remedy)
    assert capsys.readouterr() == ("", printed)


def test_what_loads_quickly_is_not_announced(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.LoadingBar("m") as bar:
        bar(1, 2)
        bar(2, 2)
    assert capsys.readouterr() == ("", "")


def test_what_loads_slowly_is_announced_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "_PATIENCE", 0.0)
    with terminal.LoadingBar("m") as bar:
        bar(1_000_000, 2_000_000)
        bar(2_000_000, 2_000_000)
    assert capsys.readouterr() == ("", "loading m, 2.0 MB\n")


def test_on_a_terminal_a_bar_comes_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "_PATIENCE", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    stream = _Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with terminal.LoadingBar("m") as bar:
        bar(1_000_000, 2_000_000)
        bar(2_000_000, 2_000_000)
    printed = stream.getvalue()
    assert "loading m" in printed
    assert "2.0/2.0 MB" in printed
    assert printed.endswith("\x1b[2K")  # the line is empty again
