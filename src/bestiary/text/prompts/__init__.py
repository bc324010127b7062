"""The common chat formats as data: no program of a stranger runs for them.

Each .toml file here holds one format and the SHA-256 of the published templates that say the same. A format
says what stands around each role's text and nothing more; `Format.fits` tells for which conversations that is
all the template does. For the others (roles it does not know, text it would trim, turns it would refuse) the
template itself is asked.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from ..tracing import TEMPLATE, Piece


@dataclass(frozen=True)
class Format:
    """A chat format. In its texts {bos} and {eos} stand for those tokens.

    Args:
        name: what it is known as.
        templates: SHA-256 of the Jinja templates that it stands for.
        turns: role -> what stands before and after its text.
        begin: what stands before everything.
        generation: what ends a prompt that asks for an answer.
        closing: what ends one that does not.
        default_system: the system text where the conversation does not begin with one.
        after_system: what stands before the first user's text after a system text, if not the usual.
        trims: the templates trim texts, so only texts without white space at their ends fit.
        alternates: the templates want user and assistant in turn, after at most one system text.
    """

    name: str
    templates: frozenset[str]
    turns: Mapping[str, tuple[str, str]]
    begin: str = ""
    generation: str = ""
    closing: str = ""
    default_system: str | None = None
    after_system: str | None = None
    trims: bool = False
    alternates: bool = False

    def fits(self, messages: Sequence[Mapping[str, Any]]) -> bool:
        """Tell whether this format says all that its templates do with these messages."""
        for message in messages:
            text = message["content"]
            if message.keys() != {"role", "content"} or message["role"] not in self.turns:
                return False
            if not isinstance(text, str) or (self.trims and (not text or text != text.strip())):
                return False
        return not self.alternates or self._alternate([message["role"] for message in messages])

    def _alternate(self, roles: list[str]) -> bool:
        rest = roles[1:] if roles[0] == "system" else roles
        return bool(rest) and all(role == ("user", "assistant")[i % 2] for i, role in enumerate(rest))

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, generation: bool, tokens: Mapping[str, str]
    ) -> list[Piece] | None:
        """Return the prompt, cut where the owner changes; None where it needs a token that the model has not.

        tokens: "bos_token" and "eos_token" -> their spelling, for a model that has them.
        """
        used = "".join(
            [self.begin, self.generation, self.closing, *(t for turn in self.turns.values() for t in turn)]
        )
        if any(f"{{{name}}}" in used and f"{name}_token" not in tokens for name in ("bos", "eos")):
            return None

        def own(text: str) -> Piece:
            for name in ("bos", "eos"):
                text = text.replace(f"{{{name}}}", tokens.get(f"{name}_token", ""))
            return Piece(text, TEMPLATE)

        pieces = [own(self.begin)]
        if self.default_system is not None and messages[0]["role"] != "system":
            before, after = self.turns["system"]
            pieces += [own(before), Piece(self.default_system, TEMPLATE), own(after)]
        for i, message in enumerate(messages):
            before, after = self.turns[message["role"]]
            if self.after_system is not None and i == 1 and messages[0]["role"] == "system":
                before = self.after_system
            pieces += [own(before), Piece(message["content"], i), own(after)]
        pieces.append(own(self.generation if generation else self.closing))
        return [piece for piece in pieces if piece.text]


@cache
def formats() -> Mapping[str, Format]:
    """Return every format, by the SHA-256 of each template that it stands for."""
    found: dict[str, Format] = {}
    for file in sorted(resources.files(__package__).iterdir(), key=lambda file: file.name):
        if file.name.endswith(".toml"):
            format_ = read(file.read_text(encoding="utf-8"))
            found |= dict.fromkeys(format_.templates, format_)
    return found


def read(text: str) -> Format:
    """Return the format that a .toml file holds."""
    values = tomllib.loads(text)
    turns = {role: (before, after) for role, (before, after) in values.pop("turns").items()}
    return Format(templates=frozenset(values.pop("templates")), turns=turns, **values)


def find(template: str) -> Format | None:
    """Return the format of a published Jinja template, None for one that is not known."""
    return formats().get(hashlib.sha256(template.encode()).hexdigest())


@cache
def named() -> Mapping[str, Format]:
    """Return every format by its name."""
    return {format_.name: format_ for format_ in formats().values()}
