"""The child process in which a stranger's grammar is compiled for the first time. A script, never imported.

llguidance counts fuel, but not for all that it does: an intersection of 300 expressions keeps it busy for
minutes, and a chain of rules can overflow its stack. Here that ends this process, after a fraction of a
second, and nothing else. A line of standard input is {"source": grammar, "limits": {name: number}, "seconds":
of the processor, "memory": bytes}; a line of standard output answers it, {"error": text or null}.
"""

from __future__ import annotations

import json
import random
import resource
import signal
import sys
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

_STEPS = 16  # taken at random, as an answer would


class Bytes:
    """What LLTokenizer asks of a tokenizer's wrapper: one whose tokens are the bytes."""

    bos_token_id, eos_token_id, special_token_ids = None, 256, (256,)
    tokens = (*(bytes([byte]) for byte in range(256)), b"")

    def __call__(self, text: bytes | str) -> list[int]:
        """Cut a text into tokens."""
        return list(text.encode() if isinstance(text, str) else text)


def main() -> None:
    """Compile one grammar after the other, until there are no more."""
    tokens = LLTokenizer(TokenizerWrapper(Bytes()), n_vocab=257, eos_token=256, slices=[])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        request = json.loads(line)
        resource.setrlimit(resource.RLIMIT_AS, (request["memory"], resource.RLIM_INFINITY))
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])  # its signal ends the process
        error = _error(tokens, request["source"], request["limits"])
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(json.dumps({"error": error}) + "\n")
        sys.stdout.flush()


def _error(tokens: LLTokenizer, source: str, limits: dict[str, Any]) -> str | None:
    matcher = LLMatcher(tokens, source, log_level=0, limits=LLParserLimits(**limits))
    draw = random.Random(0)  # noqa: S311  the same steps each time
    for _ in range(_STEPS):
        if matcher.is_error():
            return _short(matcher.get_error())
        mask = int.from_bytes(matcher.compute_bitmask(), "little")
        allowed = [byte for byte in range(256) if mask >> byte & 1]
        if matcher.is_error() or not allowed:
            break
        matcher.consume_token(draw.choice(allowed))
    return _short(matcher.get_error()) if matcher.is_error() else None


def _short(error: str) -> str:
    """Return the first line of an error, which may quote the whole grammar, and the one that says why."""
    lines = error.split("\n")
    said = [line for line in lines if line.startswith("error: ")]
    return "\n".join(line[:300] for line in (lines[0], *said[:1]))


if __name__ == "__main__":
    main()
