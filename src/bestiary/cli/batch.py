"""Many prompts from a JSONL file to another, in order; cut off, the same command goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from ..errors import BestiaryError, RequestError
from ..run.llm import LLM
from ..run.outputs import RequestOutput
from ..run.params import SamplingParams
from .terminal import note

_KINDS = ("prompt", "messages")


class Batch:
    """The prompts of one file. Reading checks them all, before a model is loaded.

    Raises RequestError that names the line for what is neither {"prompt": text} nor {"messages": [...]}.
    """

    def __init__(self, source: Path, target: Path) -> None:
        self.target = target
        self._data = source.expanduser().read_bytes()
        lines = enumerate(self._data.splitlines(), 1)
        self.rows = [_row(line, f"{source}, line {number}") for number, line in lines if line.strip()]
        if not self.rows:
            raise RequestError(f"{source} holds no prompts")

    def run(self, llm: LLM, params: SamplingParams) -> int:
        """Answer them; return 1 if some could not be, 130 after Ctrl-C, else 0.

        Answers go to a file beside the target, a line at a time, and that file takes the target's name at the
        end. Its name holds a hash of the prompts, the model and the parameters: another run never mixes with
        this one.
        """
        about = hashlib.sha256(self._data + repr((llm.name, llm.context, params)).encode()).hexdigest()[:12]
        partial = self.target.with_name(f".{self.target.name}.{about}.partial")
        done = _whole_lines(partial)
        if done:
            note(f"{done} of {len(self.rows)} were done before")
        with partial.open("a", encoding="utf-8") as file:
            for row in self.rows[done:]:
                try:
                    answered = {**row, **_answer(llm, row, params)}
                except KeyboardInterrupt:
                    note(f"{done} of {len(self.rows)} are done; the same command does the rest")
                    return 130
                file.write(json.dumps(answered, ensure_ascii=False) + "\n")
                file.flush()
                done += 1
                _show(done, len(self.rows))
            os.fsync(file.fileno())
        failed = sum("text" not in json.loads(line) for line in partial.read_bytes().splitlines())
        partial.replace(self.target)
        note(f"{done} lines in {self.target}" + (f", {failed} of them with an error" if failed else ""))
        return 1 if failed else 0


def _show(done: int, total: int) -> None:
    """How far it is, where somebody watches."""
    if sys.stderr.isatty():
        print(f"\r{done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _answer(llm: LLM, row: dict[str, Any], params: SamplingParams) -> dict[str, Any]:
    """The answer to one line; an error of this line is its answer, and the others go on."""
    try:
        if "messages" in row:
            return _told(llm.chat([row["messages"]], params)[0])
        return _told(llm.generate(row["prompt"], params)[0])
    except BestiaryError as error:
        return {"error": str(error)}


def _told(output: RequestOutput) -> dict[str, Any]:
    first = output.outputs[0]
    if first.finish_reason == "abort":
        raise KeyboardInterrupt
    told = {
        "text": first.text,
        "finish_reason": first.finish_reason,
        "prompt_tokens": output.prompt_tokens,
        "tokens": output.tokens,
    }
    return told if len(output.outputs) == 1 else {**told, "texts": [one.text for one in output.outputs]}


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{where} is not JSON: {error}") from error
    kinds = [kind for kind in _KINDS if isinstance(row, dict) and kind in row]
    if len(kinds) != 1 or not isinstance(row[kinds[0]], str if kinds[0] == "prompt" else list):
        raise RequestError(f'{where} should be {{"prompt": "..."}} or {{"messages": [...]}}')
    return dict(row)


def _whole_lines(path: Path) -> int:
    """How many lines were written whole; a last one that was cut off is taken away."""
    if not path.is_file():
        return 0
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    return whole.count(b"\n")
