"""What a user types, message by message, on a terminal that can edit lines or on one that cannot."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .terminal import paint

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

QUOTE = '"""'
PROMPT, MORE = "> ", "  "

# Returns the next message. Raises EOFError at the end (Ctrl-D) and KeyboardInterrupt for Ctrl-C.
Reader = Callable[[], str]


def is_whole(text: str) -> bool:
    r"""Whether a message is ended by its line end: not inside \"\"\", and not after a backslash."""
    if text.lstrip().startswith(QUOTE):
        return len(text.strip()) >= 2 * len(QUOTE) and text.rstrip().endswith(QUOTE)
    return not text.endswith("\\")


def unwrapped(text: str) -> str:
    """The message itself, without the marks that made it go on over several lines."""
    inner = text.strip()
    if inner.startswith(QUOTE):
        return inner.removeprefix(QUOTE).removesuffix(QUOTE).strip("\n")
    return text.replace("\\\n", "\n")


def reader(history: Path | None, commands: Sequence[str]) -> Reader:
    """A reader for this terminal. history: the file that keeps what was typed; None keeps nothing."""
    if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return read_plain
    session = _session(history, commands)
    return lambda: unwrapped(session.prompt())


def read_plain() -> str:
    """Read a message line by line, prompting on standard error."""
    text = _line(PROMPT)
    while not is_whole(text):
        text += "\n" + _line(MORE)
    return unwrapped(text)


def _line(prompt: str) -> str:
    print(paint(prompt, "1", sys.stderr), end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")


def _session(history: Path | None, commands: Sequence[str]) -> PromptSession[str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.formatted_text import ANSI
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    if history is not None:
        history.parent.mkdir(parents=True, exist_ok=True)
        history.touch(mode=0o600)  # what is said to a model is nobody else's to read
    return PromptSession(
        ANSI(paint(PROMPT, "1")),
        multiline=True,
        prompt_continuation=MORE,
        key_bindings=_keys(),
        history=FileHistory(history) if history is not None else InMemoryHistory(),
        completer=WordCompleter(list(commands), sentence=True),
        complete_while_typing=False,
        enable_history_search=True,
    )


def _keys() -> KeyBindings:
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("enter")
    def _enter(event: KeyPressEvent) -> None:
        """End the message where it is whole; Alt-Enter, the library's own, ends it anywhere."""
        buffer = event.current_buffer
        if is_whole(buffer.text):
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n")

    return keys
