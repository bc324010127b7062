"""What every command has in common: help, errors, exit codes."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bestiary.cli
from bestiary.cli import COMMANDS, listing, main, parser
from bestiary.errors import CheckpointError

from .conftest import Bestiary

MOST_OPTIONS = 10
SOURCE = str(Path(bestiary.cli.__file__).parents[2])


def test_help_names_every_command(bestiary: Bestiary) -> None:
    code, out, err = bestiary("--help")
    assert (code, err) == (0, "")
    for name, summary in COMMANDS.items():
        assert f"  {name} " in out
        assert summary in out
    assert bestiary().code == 2
    assert bestiary().out == out


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_and_few_options(name: str, bestiary: Bestiary) -> None:
    code, out, err = bestiary(name, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: bestiary {name}")
    assert "exit codes: 0 done" in out
    for group in parser(name)._action_groups:
        shown = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
        assert len([action for action in shown if action.dest != "help"]) <= MOST_OPTIONS, group.title


def test_version(bestiary: Bestiary) -> None:
    assert bestiary("--version").out == f"bestiary {__import__('bestiary').__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["chatt"], 2, "error: no command is called 'chatt'; did you mean 'chat'?\n  try: bestiary --help\n"),
        (["--nope"], 2, "error: unrecognized arguments: --nope\n  try: bestiary --help\n"),
        (
            ["list", "--jsn"],
            2,
            "error: unrecognized arguments: --jsn; did you mean --json?\n  try: bestiary list --help\n",
        ),
        (["bench", "-o", "xml"], 2, "error: argument -o/--output: invalid choice: 'xml'"),
        (["show", "./none"], 3, "error: ./none: no such file or folder\n"),
        (["show", "smolm2"], 3, "Did you mean 'smollm2'?\n  try: bestiary list\n"),
        (["chat", "--prompt", "hi"], 3, "is not in {cache} yet.\n  try: bestiary pull smollm2\n"),
        (["show", "a\x1b[31m"], 3, "error: 'a\\x1b[31m' is neither a path nor a name"),
        (["show", "x", "-m", "y"], 2, "error: two models are named, 'x' and --model 'y'\n"),
        (
            ["generate", "m", "t", "--file", "f"],
            2,
            "error: one text at a time: TEXT, --file or --jsonl, not 2",
        ),
        (
            ["generate", "--jsonl", "f"],
            2,
            "error: --jsonl and --out go together\n  try: --jsonl prompts.jsonl",
        ),
        (["generate", "--jsonl", "/none", "--out", "f"], 1, "error: /none: No such file or directory\n"),
        (["chat"], 2, "error: there is no prompt\n  try: bestiary chat --prompt"),
        (["bench", "-p", "x"], 2, "error: -p 'x' should be a number such as 4096 or 4K\n"),
    ],
)
def test_mistakes_are_told_in_two_lines(
    arguments: list[str], code: int, message: str, bestiary: Bestiary, caches: Path
) -> None:
    ran = bestiary(*arguments)
    assert ran.code == code
    assert ran.out == ""
    assert message.format(cache=caches) in ran.err
    assert "Traceback" not in ran.err
    assert len(ran.err.splitlines()) <= 2


def test_a_damaged_file_is_told_with_its_remedy(bestiary: Bestiary, tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(3))
    code, _, err = bestiary("show", tmp_path / "bad.gguf")
    assert code == 1
    told, remedy = err.splitlines()
    assert told.startswith(f"error: {tmp_path}/bad.gguf")
    assert remedy.startswith("  try: ")
    assert remedy.removeprefix("  try: ") not in told


def _raise(error: BaseException) -> object:
    def run(options: argparse.Namespace) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            ZeroDivisionError("by zero"),
            70,
            "error: ZeroDivisionError: by zero\n  try: the same with BESTIARY_DEBUG=1",
        ),
        (MemoryError(), 1, "error: there is not enough memory for this\n  try: a smaller model"),
        (PermissionError(13, "Permission denied", "/x"), 1, "error: /x: Permission denied\n"),
        (OSError("odd"), 1, "error: odd\n"),
        (KeyboardInterrupt(), 130, "\n"),
        (
            CheckpointError("is cut", file="f", remedy="Pull it again"),
            1,
            "error: f: is cut\n  try: Pull it again\n",
        ),
    ],
)
def test_exit_codes(
    error: BaseException, code: int, message: str, bestiary: Bestiary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "run", _raise(error))
    ran = bestiary("list")
    assert ran.code == code
    assert ran.err.startswith(message)
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("ask", ["before", "after", "variable"])
def test_a_traceback_for_who_asks(ask: str, bestiary: Bestiary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "run", _raise(ZeroDivisionError("by zero")))
    if ask == "variable":
        monkeypatch.setenv("BESTIARY_DEBUG", "1")
    flag = ["--traceback"]
    ran = bestiary(*flag * (ask == "before"), "list", *flag * (ask == "after"))
    assert ran.code == 70
    assert "Traceback (most recent call last)" in ran.err
    assert ran.err.endswith("report what it prints\n")


def test_a_reader_that_goes_away_is_no_error() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "bestiary", "list", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": SOURCE},
    )
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    assert child.wait() == 141
    assert child.stderr.read() == b""
    child.stderr.close()


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_any_terminal_and_any_input(encoding: str, tmp_path: Path) -> None:
    """What a terminal cannot show is written out; what is not text on standard input is refused."""
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": SOURCE}
    command = [sys.executable, "-m", "bestiary", "show", str(tmp_path / "llama-\u20ac")]
    ran = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert ran.returncode == 3
    assert ("llama-\\u20ac" if encoding == "ascii" else "llama-\u20ac") in ran.stderr.decode()
    command = [sys.executable, "-m", "bestiary", "chat", "smollm2"]
    ran = subprocess.run(command, env=environment, capture_output=True, check=False, input=b"ab\xff")
    assert ran.returncode == 2
    assert f"error: standard input is not {encoding} text: byte 2 is an ".encode() in ran.stderr


def test_commands_do_not_import_torch_before_they_need_it() -> None:
    code = "import sys; from bestiary.cli import main; main(['list']); main(['pull', 'smolm2'])\n"
    code += "assert not {'torch', 'huggingface_hub', 'rich', 'prompt_toolkit'} & set(sys.modules)"
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("given", "count"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_spinning_of_threads_is_bounded(
    given: dict[str, str], count: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless somebody decided otherwise."""
    named = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    others = {name: value for name, value in os.environ.items() if name not in named}
    monkeypatch.setattr(os, "environ", {**others, **given})
    assert main(["list"]) == 0
    assert os.environ.get("GOMP_SPINCOUNT") == count


def test_the_arguments_of_the_process_are_the_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bestiary", "list", "--here", "--json"])
    assert main() == 0
    assert capsys.readouterr().out == "[]\n"
