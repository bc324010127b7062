"""Published renderings of prompts, by their SHA-256: the same texts here?

prompts.json holds the conversations and, for each format, what its authors' code made of which of them; the
tool that wrote it (tools/prompt_vectors.py) had compared the texts themselves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from ..errors import BestiaryError
from ..roster import Entry
from ..text import prompts
from ..text.bare import bare
from ..text.chat import ChatTemplate
from .finding import Finding


@dataclass(frozen=True)
class Vector:
    """One conversation and the hash of its prompt. generation: is an answer asked for."""

    messages: Sequence[Mapping[str, Any]]
    generation: bool
    tools: Sequence[Mapping[str, Any]] | None
    values: Mapping[str, str]
    sha256: str


@cache
def vectors() -> Mapping[str, tuple[Vector, ...]]:
    """Return the vectors of each format."""
    said = json.loads((files(__package__) / "prompts.json").read_text("utf-8"))
    talks = said["conversations"]
    return {
        name: tuple(
            Vector(
                talks[row[0]],
                row[1],
                row[3] if len(row) > 3 else None,
                row[4] if len(row) > 4 else {},
                row[2],
            )
            for row in rows
        )
        for name, rows in said["formats"].items()
    }


def compare(entry: Entry) -> Iterator[Finding]:
    """Yield, for each format of a system's checkpoints, whether it writes what its authors' code wrote."""
    for name in dict.fromkeys(one.prompt for one in entry.checkpoints if one.prompt):
        yield rendered(name)


def bare_template(name: str) -> ChatTemplate:
    """Return the template of a format over a tokenizer of bytes, with the control tokens that it needs."""
    format_ = prompts.get(name)
    ends = {"bos_token": "<s>", "eos_token": "</s>"}
    return ChatTemplate(format_, bare([*format_.needs, *ends.values()]), tokens=ends)


@cache
def rendered(name: str) -> Finding:
    """Return whether a format writes what was published of it."""
    found = vectors().get(name, ())
    what = f"{name}: {len(found)} published renderings"
    if not found and _is_plain(name):
        return Finding(f"{name}: the text itself", True, note="nothing stands around it")
    if not found:
        return Finding(f"{name}: published renderings", None, note="none could be had from its authors' code")
    try:
        template = bare_template(name)
        for vector in found:
            prompt = template.encode(
                vector.messages,
                generation=vector.generation,
                tools=vector.tools,
                values=vector.values or None,
            )
            if sha256(prompt.text) != vector.sha256:
                return Finding(
                    what, False, note=f"of {json.dumps(vector.messages, ensure_ascii=False)[:200]}"
                )
    except BestiaryError as error:
        return Finding(what, False, note=str(error))
    return Finding(what, True)


def _is_plain(name: str) -> bool:
    """Tell whether a format writes nothing but the question."""
    return bare_template(name).encode([{"role": "user", "content": "a question"}]).text == "a question"


def sha256(text: str) -> str:
    """Return the hash of a rendered prompt."""
    return hashlib.sha256(text.encode()).hexdigest()
