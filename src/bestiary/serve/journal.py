"""What was sampled, a line a token, written where it was sampled: a client's tokens can be held to it."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path


class Journal:
    """A JSONL file of {"id", "index", "step", "token"}: never a prompt, never a text.

    id: the answer's, as the client got it. index: of the choice. step: of the token in it, from 0. A disk
    that is full ends the journal, and no answer.
    """

    def __init__(self, path: str) -> None:
        self._file = Path(path).open("a", encoding="utf-8")  # noqa: SIM115 (open as long as the worker lives)
        self._steps: defaultdict[tuple[str, int], int] = defaultdict(int)

    def add(self, name: str, index: int, tokens: list[int]) -> None:
        """Write down the next tokens of an answer."""
        begin = self._steps[name, index]
        self._steps[name, index] = begin + len(tokens)
        lines = (
            json.dumps({"id": name, "index": index, "step": begin + i, "token": token})
            for i, token in enumerate(tokens)
        )
        try:
            self._file.writelines(f"{line}\n" for line in lines)
        except OSError as error:
            sys.stderr.write(f"journal: {error.strerror}\n")

    def end(self, name: str, index: int) -> None:
        """Forget how many tokens an answer has."""
        self._steps.pop((name, index), None)

    def flush(self) -> None:
        """Let other processes see what was written."""
        try:
            self._file.flush()
        except OSError as error:
            sys.stderr.write(f"journal: {error.strerror}\n")
