"""What an answer must never tell: where files are, how the server is written, what others asked."""

from __future__ import annotations

import re
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_LEAKS = {
    "a path": re.compile(
        r"(?<![\w.:/-])/(?:home|root|tmp|usr|opt|etc|var|proc|work|mnt|srv)/\w", re.IGNORECASE
    ),
    "a path of this machine": re.compile("|".join(map(re.escape, {str(_ROOT), sys.prefix, sys.base_prefix}))),
    "a traceback": re.compile(r'Traceback \(most recent|File "[^"]+", line \d+|\.py\b'),
    "a class": re.compile(
        r"\b(?:Key|Value|Type|Index|Attribute|Recursion|Memory|Runtime|Assertion|UnicodeDecode|JSONDecode|OS|"
        r"Validation|Request|Bestiary|Template|Tokenizer|Checkpoint|Stream|API)Error\b|PanicException|"
        r"<class '|pydantic|starlette|uvicorn|torch\.|bestiary\."
    ),
}


def leaks(body: str, sent: str = "") -> list[str]:
    """Name what an error's body leaks; what the request itself said may be said back."""
    found = ((what, match.group()) for what, pattern in _LEAKS.items() for match in pattern.finditer(body))
    return [f"{what}: {text!r}" for what, text in found if text not in sent]
