"""What an entry of the quirks holds, and the reader that refuses one with more or with other types."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ..around import Named
from ..declared import Declared

Row = Mapping[str, Any]


@dataclass(frozen=True)
class When:
    """What makes it certain that a folder needs an entry: all of it that is given has to hold.

    class_name: tokenizer_config.json names one of these classes; "" is that it names none. model_type: of
    config.json. origin: name_or_path, of either file. file: patterns of the tokenizer's file name. sha256: of
    that file. contains: what that file holds somewhere.
    """

    class_name: tuple[str, ...] | None = None
    model_type: tuple[str, ...] | None = None
    origin: tuple[str, ...] | None = None
    file: tuple[str, ...] | None = None
    sha256: tuple[str, ...] | None = None
    contains: str | None = None

    @property
    def conditions(self) -> int:
        """How many conditions are given."""
        return sum(getattr(self, one.name) is not None for one in fields(self))


@dataclass(frozen=True)
class Icetk:
    """What icetk's users add to its file. See `text.icetk`.

    special: the eight tokens after the text's pieces. image: how many ids come before them, for pictures,
    where the folder does not say (num_image_tokens). shown: spelling -> how decoding shows it; what follows
    such a token is decoded as a text of its own.
    """

    special: tuple[str, ...]
    image: int = 0
    shown: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Characters:
    """Stretches of a text of which each character is a token of its own.

    between: the control tokens that begin and end one. mark: what the tokenizer's file takes away where it
    splits words; one goes before each character, and before the end.
    """

    between: tuple[tuple[str, str], ...]
    mark: str

    def within(self, allowed: Collection[str]) -> Characters:
        """Return those of the stretches whose beginning and end are both among some tokens."""
        return replace(self, between=tuple(pair for pair in self.between if set(pair) <= set(allowed)))

    def apply(self, text: str) -> str:
        """Return the text as the tokenizer's file wants it."""
        for begin, end in self.between:
            pattern = f"({re.escape(begin)})(.*?)({re.escape(end)})"
            text = re.sub(pattern, self._marked, text)
        return text

    def _marked(self, found: re.Match[str]) -> str:
        return found[1] + "".join(self.mark + one for one in found[2]) + self.mark + found[3]


@dataclass(frozen=True)
class Quirks:
    """What was published of a system's tokenizer in code only.

    what: of which systems, in a line. published: the file that says so. class_name: the tokenizer_class that
    the folder should have named. tokens: "bos_token" and its kin -> spelling. options: what
    tokenizer_config.json should have said beside. control: control tokens that no file names -> id. around:
    what stands around one text and around two, which are 0 and 1. wrong: bos_token_id or eos_token_id -> the
    id that the folder's JSON files give and that is another token's.
    """

    name: str
    what: str = ""
    published: str = ""
    when: When | None = None
    class_name: str | None = None
    tokens: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, bool] = field(default_factory=dict)
    control: Mapping[str, int] = field(default_factory=dict)
    around: tuple[tuple[Named, ...], tuple[Named, ...]] | None = None
    wrong: Mapping[str, int] = field(default_factory=dict)
    icetk: Icetk | None = None
    characters: Characters | None = None

    def apply(self, said: Declared) -> Declared:
        """Return what a folder declares, with what it should have declared in its place."""
        return replace(
            said,
            class_name=self.class_name or said.class_name,
            named={**said.named, **self.tokens},
            options={**said.options, **self.options},
            ids={key: number for key, number in said.ids.items() if self.wrong.get(key) != number},
            wrapped=self.around or said.wrapped,
        )


NONE = Quirks("none")
"""No quirks: only what the files say."""


def read(name: str, row: Row) -> Quirks:
    """Return the entry of a .toml file. Raises ValueError for keys or types that it should not have."""
    known = {one.name for one in fields(Quirks)} - {"name"}
    if unknown := sorted(set(row) - known):
        raise ValueError(f"{name}.toml has {unknown[0]!r}; known: {', '.join(sorted(known))}")
    if not row.get("what") or not row.get("published"):
        raise ValueError(f"{name}.toml says not what it is of, or where that was published")
    parts: dict[str, Any] = dict(row)
    for key, kind in (("tokens", str), ("options", bool), ("control", int), ("wrong", int)):
        if {type(value) for value in row.get(key, {}).values()} - {kind}:
            raise ValueError(f"{name}.toml: a value of {key} is not of type {kind.__name__}")
    if "when" in row:
        parts["when"] = When(**{key: _words(value) for key, value in row["when"].items()})
    if "around" in row:
        parts["around"] = tuple(tuple((what, 0) for what in row["around"][key]) for key in ("one", "two"))
    if "icetk" in row:
        parts["icetk"] = Icetk(**{key: _words(value) for key, value in row["icetk"].items()})
    if "characters" in row:
        between = tuple((begin, end) for begin, end in row["characters"]["between"])
        parts["characters"] = Characters(between, row["characters"]["mark"])
    return Quirks(name, **parts)


def _words(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
