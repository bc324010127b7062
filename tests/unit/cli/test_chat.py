"""chat: one answer, and a conversation with its commands."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

import bestiary
from bestiary import LLM, SamplingParams
from bestiary.cli import chat, reader
from bestiary.cli.talk import Talk
from bestiary.errors import RequestError

from .conftest import Bestiary, write_tokenizer

SOURCE = str(Path(bestiary.__file__).parents[1])
GREEDY = SamplingParams(temperature=0, max_tokens=12)


@pytest.fixture(scope="module")
def llm(model: Path) -> LLM:
    return LLM(model)


@pytest.fixture
def talk(llm: LLM) -> Talk:
    return Talk(llm, GREEDY)


def _answer(llm: LLM, *turns: str, system: str | None = None) -> str:
    """What LLM.chat answers to the last of user, assistant, user, ..."""
    messages = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
    told = [{"role": "system", "content": system}] if system is not None else []
    return llm.chat([*told, *messages], GREEDY)[0].text


def test_one_answer(bestiary: Bestiary, model: Path, llm: LLM) -> None:
    wanted = _answer(llm, "hello")
    assert len(wanted) > 5
    cut = "cut here: the most tokens of an answer (-n, /params max_tokens=2048), or the context is full\n"
    assert bestiary("chat", model, "--prompt", "hello", "-n", 12) == (0, wanted + "\n", cut)
    # Standard input that is no terminal is one prompt, unless there is --prompt; then it is not even read.
    assert bestiary("chat", model, "-n", 12, stdin="hello").out == wanted + "\n"
    assert bestiary("chat", model, "-p", "hello", "-n", 12, stdin="not this").out == wanted + "\n"
    told = bestiary("chat", model, "-p", "hello", "--system", "he", "-n", 12).out
    assert told == _answer(llm, "hello", system="he") + "\n"


def test_nothing_is_fetched_and_no_code_beside_a_model_is_run(model: Path, tmp_path: Path, llm: LLM) -> None:
    """From inside the model's folder, with modules there that Python would rather import."""
    for path in model.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for name in ("modeling_llama", "tokenization", "torch", "jinja2", "pip", "conftest", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w').close()")
    code = """
import sys
def refuse(event, args):
    if event.startswith("socket."):
        raise SystemExit(f"{event} {args}")
sys.addaudithook(refuse)
from bestiary.cli import main
sys.exit(main(["chat", ".", "--prompt", "hello", "-n", "12", "--trust-remote-code"]))
"""
    # -P: as the program `bestiary` is run, without the current folder on the path.
    ran = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": SOURCE},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, _answer(llm, "hello") + "\n"), ran.stderr
    assert not (tmp_path / "ran").exists()


def test_a_model_without_a_template_is_no_chat_model(bestiary: Bestiary, model: Path, tmp_path: Path) -> None:
    for path in model.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    write_tokenizer(tmp_path)
    said = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del said["chat_template"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(said))
    ran = bestiary("chat", tmp_path, "-p", "hello")
    assert ran.code == 2
    assert ran.err.startswith(f"error: {tmp_path} has no chat template: it is a base model")
    assert "try: bestiary generate; or --chat-template NAME" in ran.err
    assert bestiary("chat", tmp_path, "-p", "hello", "--chat-template", "chatml", "-n", "2").code == 0
    ran = bestiary("chat", tmp_path, "-p", "hello", "--chat-template", "vicunna-v1.1")
    assert (ran.code, "did you mean 'vicuna-v1.1'" in ran.err) == (2, True)


def test_turns_are_remembered(talk: Talk, llm: LLM) -> None:
    told: list[str] = []
    assert talk.ask("hello", told.append) == "length"
    first = "".join(told)
    assert first == _answer(llm, "hello")
    told.clear()
    talk.ask("world", told.append)
    assert "".join(told) == _answer(llm, "hello", first, "world")
    assert [message["role"] for message in talk.messages] == ["user", "assistant", "user", "assistant"]
    talk.clear()
    assert talk.messages == []


def test_again(talk: Talk) -> None:
    with pytest.raises(RequestError, match="no answer yet"):
        talk.again(print)
    talk.ask("hello", lambda text: None)
    before = list(talk.messages)
    talk.again(lambda text: None)
    assert talk.messages == before
    talk.params = SamplingParams(temperature=1.5, seed=1, max_tokens=12)
    talk.again(lambda text: None)
    assert talk.messages != before
    with pytest.raises(RequestError, match="n=2"):
        talk.params = SamplingParams(n=2)


def test_system(talk: Talk, llm: LLM) -> None:
    talk.ask("hello", lambda text: None)
    talk.instruct("he")
    told: list[str] = []
    talk.again(told.append)
    assert "".join(told) == _answer(llm, "hello", system="he")
    talk.clear()
    assert talk.messages == [{"role": "system", "content": "he"}]
    talk.instruct(None)
    assert (talk.system, talk.messages) == (None, [])


def _interrupt_after(count: int) -> Callable[[str], None]:
    left = [count]

    def write(text: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGINT)

    return write


def test_an_interrupted_answer_stays_as_far_as_it_went(talk: Talk, llm: LLM) -> None:
    whole = _answer(llm, "hello")
    assert talk.ask("hello", _interrupt_after(4)) == "abort"
    part = str(talk.messages[-1]["content"])
    assert 0 < len(part) < len(whole)
    assert whole.startswith(part)
    assert talk.ask("world", lambda text: None) == "length"


def test_a_question_that_cannot_be_answered_is_taken_back(talk: Talk) -> None:
    with pytest.raises(RequestError, match=r"must hold it and an answer"):
        talk.ask("x" * 5000, lambda text: None)
    assert talk.messages == []
    talk.ask("hello", lambda text: None)


def test_save_and_load(talk: Talk, llm: LLM, tmp_path: Path) -> None:
    talk.instruct("he")
    talk.ask("hello", lambda text: None)
    talk.save(tmp_path / "talk.json")
    assert [path.name for path in tmp_path.iterdir()] == ["talk.json"]
    other = Talk(llm, GREEDY)
    other.load(tmp_path / "talk.json")
    assert other.messages == talk.messages
    assert other.system == "he"


@pytest.mark.parametrize(
    "text",
    ['{"messages": 3}', "[]", "{", '{"messages": [{"role": "king", "content": "x"}]}', '{"messages": [3]}'],
)
def test_load_of_what_is_no_conversation(talk: Talk, tmp_path: Path, text: str) -> None:
    (tmp_path / "talk.json").write_text(text)
    with pytest.raises(RequestError, match=r"talk.json is no saved conversation: "):
        talk.load(tmp_path / "talk.json")
    assert talk.messages == []


def _converse(talk: Talk, lines: Sequence[str | type[BaseException]]) -> None:
    told: Iterator[str | type[BaseException]] = iter(lines)

    def read() -> str:
        line = next(told, EOFError)
        if isinstance(line, str):
            return line
        raise line

    chat._converse(talk, read)
    assert next(told, None) is None


def test_commands(talk: Talk, llm: LLM, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "with space.json"
    lines: list[str | type[BaseException]] = ["/help", "/system he", "hello", KeyboardInterrupt, ""]
    lines += ["/params max_tokens=3 stop='[\"zz\"]'", "/regen", f"/save {saved}", "/clear", f"/load {saved}"]
    lines += ["/system -", "/exit"]
    _converse(talk, lines)
    out, err = capsys.readouterr()
    first, second = out.splitlines()
    assert first == _answer(llm, "hello", system="he")
    assert first.startswith(second)
    assert (talk.params.max_tokens, talk.params.stop) == (3, ("zz",))
    for command in chat.COMMANDS.values():
        assert command.usage in err
    assert "max_tokens=3\n" in err
    assert "so it is the same; /params temperature=0.7 varies it" in err
    assert "Ctrl-D or /exit leaves" in err
    assert "3 messages; the conversation goes on" in err
    assert [message["role"] for message in talk.messages] == ["user", "assistant"]


def test_a_mistake_does_not_end_the_conversation(
    talk: Talk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = ["/sav x", "/zzz", "/save", "/load /none", f"/save {tmp_path}/no/x", "/params x=1", "/params 'a"]
    _converse(talk, [*wrong, "/regen", "x" * 5000])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("error: ") == 9
    assert "no command is called /sav\n  try: /save" in err
    assert "no command is called /zzz\n  try: /help or a space in front, to say it to the model" in err
    assert "/save needs the name of a file\n  try: /save talk.json" in err
    assert "No closing quotation" in err


def test_a_slash_that_is_no_command_is_said(talk: Talk) -> None:
    _converse(talk, [" /help me", "/etc/passwd"])
    assert [m["content"] for m in talk.messages if m["role"] == "user"] == ["/help me", "/etc/passwd"]


@pytest.mark.parametrize(
    ("typed", "whole", "message"),
    [
        ("one", True, "one"),
        ("one\\", False, None),
        ("one\\\ntwo", True, "one\ntwo"),
        ('"""', False, None),
        ('"""one', False, None),
        ('"""one\n\ntwo', False, None),
        ('"""\none\n\n  two\n"""', True, "one\n\n  two"),
        ('"""one"""', True, "one"),
        ('say """', True, 'say """'),
        ("", True, ""),
    ],
)
def test_where_a_message_ends(typed: str, whole: bool, message: str | None) -> None:
    assert reader.is_whole(typed) is whole
    if message is not None:
        assert reader.unwrapped(typed) == message


def test_plain_reader(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = iter(["one\n", "two\\\n", "three\n", '"""\n', "four\n", '"""\n', ""])
    monkeypatch.setattr(sys, "stdin", type("Lines", (), {"readline": lambda self: next(lines)})())
    read = reader.reader(None, [])
    assert [read(), read(), read()] == ["one", "two\nthree", "four"]
    with pytest.raises(EOFError):
        read()
    assert capsys.readouterr() == ("", "> > " + "  " + "> " + "  " * 2 + "> ")


def test_editing_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = tmp_path / "cache" / "chat_history"
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        read = reader._session(history, ["/help", "/params"])
        keys.send_text("one\r")
        assert read.prompt() == "one"
        keys.send_text("two\\\rthree\r")
        assert read.prompt() == "two\\\nthree"
        keys.send_text('"""\rfour\r\r"""\r')
        assert read.prompt() == '"""\nfour\n\n"""'
        keys.send_text("\x1b[200~five\nsix\x1b[201~\r")  # pasted
        assert read.prompt() == "five\nsix"
        keys.send_text("seven\x1b\r")  # Alt-Enter
        assert read.prompt() == "seven"
        keys.send_text("\x04")
        with pytest.raises(EOFError):
            read.prompt()
        keys.send_text("\x03")
        with pytest.raises(KeyboardInterrupt):
            read.prompt()
    assert "+one" in history.read_text().splitlines()
    assert history.stat().st_mode & 0o777 == 0o600


class Terminal:
    """`bestiary` in a pseudo terminal that is its own, so that Ctrl-C reaches it."""

    def __init__(self, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        code = "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        code += "from bestiary.cli import main; sys.exit(main(sys.argv[1:]))"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm", "NO_COLOR": "1", "PYTHONPATH": SOURCE},
            start_new_session=True,
        )
        os.close(slave)
        self.seen = ""

    def until(self, pattern: str, seconds: float = 60.0) -> str:
        """Wait for what is printed next to match; return all of it up to there."""
        over = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen)):
            assert time.monotonic() < over, f"{pattern!r} was not printed, but {self.seen!r}"
            if select.select([self.master], [], [], 0.5)[0]:
                self.seen += os.read(self.master, 65536).decode(errors="replace")
                if self.seen.endswith("\x1b[6n"):
                    os.write(self.master, b"\x1b[1;1R")  # the cursor's place, which prompt_toolkit asks for
        text, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return text

    def type(self, text: str) -> None:
        """Type, once the program reads: it turns bracketed paste on when it does."""
        self.until(r"\x1b\[\?2004h")
        os.write(self.master, text.encode())


@pytest.fixture
def terminal(model: Path) -> Iterator[Terminal]:
    """`bestiary chat` whose answers go on for thousands of tokens."""
    opened = Terminal("chat", str(model), "-n", "-1", "--set", "ignore_eos=true")
    yield opened
    opened.process.kill()
    opened.process.wait()
    os.close(opened.master)


def test_in_a_terminal(terminal: Terminal, caches: Path) -> None:
    """Ctrl-C stops the answer and not the program, and Ctrl-D leaves."""
    terminal.until("/help for commands")
    terminal.type("hello\r")
    terminal.until(r"\x1b\[\?2004l[^\x1b]{3}")  # the answer: reading is over, and three characters are there
    os.write(terminal.master, b"\x03")
    terminal.until("stopped")
    terminal.type("/params max_tokens=3 \\\rtemperature=0\r")
    terminal.until("max_tokens=3")
    terminal.type("hello\r")
    terminal.until("cut here")
    terminal.type("\x03")
    terminal.until("Ctrl-D or /exit leaves")
    terminal.type("\x04")
    assert terminal.process.wait(30) == 0
    assert "+hello" in (caches / "chat_history").read_text()
