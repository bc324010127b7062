"""Every published rendering of a prompt, byte for byte: by our format of it, or with the reason why not.

tests/roster/prompts/<name>.toml says, for a file of reference prompts, which of our formats each rendering in
it is. Rows are tried in turn; checkpoint, source, case and authority are parts of what the rendering says.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from bestiary.errors import BestiaryError, RequestError
from bestiary.prove.tokens import SETTINGS, Setting, unpack
from bestiary.text import Tokenizer, open_tokenizer, prompts
from bestiary.text.chat import ChatTemplate, Prompt
from tests import goldens
from tests.unit.text.chat_models import make
from tests.unit.text.chat_styles import STYLES

Json = dict[str, Any]
ROWS = Path(__file__).parent / "prompts"


@dataclass(frozen=True)
class Row:
    """What some renderings are. format: ours. template: the reference's own Jinja is rendered as it is.

    differs: why such a rendering is not followed. fields: options that are fields of the first question.
    options: those that are the format's values; values: others. tools: the option with tools, if any.
    tokenizer: a folder of reference tokenizers, for ids. control: tokens that it had beside its own.
    renumbered: ids that the reference gave otherwise than they were published -> the published ones.
    text: false where the reference's text is no text. messages: those of a rendering that lists none, or that
    lists what a model wrote where ours have a key for it. where: options that a rendering has.
    asks: the text ends before the answer that the reference lists.
    bos, eos: how a model without that tokenizer spells them.
    """

    checkpoint: str = ""
    source: str = ""
    case: str = ""
    authority: str = ""
    format: str | None = None
    template: bool = False
    differs: str | None = None
    fields: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    tools: str | None = None
    tokenizer: str | None = None
    control: Mapping[str, int] = field(default_factory=dict)
    renumbered: Mapping[str, int] = field(default_factory=dict)
    text: bool = True
    messages: tuple[Mapping[str, Any], ...] = ()
    where: Mapping[str, Any] = field(default_factory=dict)
    asks: bool = False
    bos: str = "<s>"
    eos: str = "</s>"

    def says(self, entry: Json) -> bool:
        return (
            self.checkpoint in entry["checkpoint"]
            and self.source in entry["source"]
            and entry["case"].startswith(self.case)
            and self.authority in ("", entry["authority"])
            and self.where.items() <= entry.get("options", {}).items()
        )


def rows(name: str) -> list[Row]:
    read: list[Json] = tomllib.loads((ROWS / f"{name}.toml").read_text("utf-8"))["rendering"]
    made: list[Row] = []
    for row in read:
        values: Json = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
        made.append(Row(**values))
    return made


ROOT = goldens.root()
FILES = sorted((ROOT / "prompts").glob("*.json")) if ROOT else []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_published_prompts(file: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    known, wrong, checked = rows(file.stem), [], 0
    for number, entry in enumerate(json.loads(file.read_text("utf-8"))):
        label = f"{number} {entry['checkpoint']} | {entry['source']} | {entry['case']}"
        row = next((row for row in known if row.says(entry)), None)
        if row is None:
            wrong.append(f"{label}: no row says what it is")
        elif row.differs is None:
            checked += 1
            if (problem := compared(entry, row, tmp_path_factory.getbasetemp())) is not None:
                wrong.append(f"{label}: {problem}")
        elif entry["authority"] in ("authors", "authors-copy") and not row.differs.startswith("!"):
            wrong.append(f"{label}: the authors' own is followed, unless the reason begins with !")
    assert not wrong, "\n" + "\n".join(wrong)
    assert checked > 0 or all(row.differs for row in known)


def compared(entry: Json, row: Row, folder: Path) -> str | None:
    """Return what is wrong with our rendering of an entry; None for nothing."""
    chat = template(entry, row, folder)
    if entry.get("raises"):
        try:
            rendered(entry, row, chat)
        except RequestError:
            return None
        return "the reference refuses these messages"
    try:
        prompt = rendered(entry, row, chat)
    except BestiaryError as error:  # every entry is reported, not only the first that fails
        return f"{type(error).__name__}: {error}"
    want = [row.renumbered.get(str(id), id) for id in entry.get("ids", ())]
    if row.tokenizer and "ids" in entry and prompt.ids != want:
        return f"ids\n  ours {prompt.ids}\n  want {want}\n  text {prompt.text!r}"
    if row.text and prompt.text != entry["text"]:
        return f"text\n  ours {prompt.text!r}\n  want {entry['text']!r}"
    return unstopped(entry, row, chat) or unlike_segments(entry, row)


def rendered(entry: Json, row: Row, chat: ChatTemplate) -> Prompt:
    messages, options = conversation(entry, row)
    return chat.encode(messages, **options)


def conversation(entry: Json, row: Row) -> tuple[list[Json], Json]:
    """Return the messages of an entry, and what ChatTemplate.encode is given beside them."""
    options = entry.get("options", {})
    messages = [dict(message) for message in row.messages or entry["messages"]]
    if row.asks:
        messages.pop()
    first = next((message for message in messages if message["role"] == "user"), None)
    if first is not None:
        first |= {name: options[name] for name in row.fields if options.get(name)}
    said = {name: str(options[name]) for name in row.options if name in options}
    return messages, {
        "generation": options.get("add_generation_prompt", True),
        "tools": options.get(row.tools) if row.tools else None,
        "values": {**row.values, **said} or None,
    }


def template(entry: Json, row: Row, folder: Path) -> ChatTemplate:
    needs = prompts.get(row.format).needs if row.format else ()
    control = tuple(row.control.items())
    tokenizer = opened(row.tokenizer, control, folder) if row.tokenizer else plain(needs, folder)
    tokens = None if row.tokenizer else {"bos_token": row.bos, "eos_token": row.eos}
    source = entry["options"]["chat_template"] if row.template else prompts.get(row.format or "")
    return ChatTemplate(source, tokenizer, tokens=tokens)


@cache
def plain(needs: tuple[str, ...], folder: Path) -> Tokenizer:
    """Return a tokenizer with the control tokens that a format needs."""
    style = STYLES["mistral"]
    control = tuple(dict.fromkeys((*style.control, *needs)))
    return make(replace(style, control=control), "byte-level", Path(mkdtemp(dir=folder))).tokenizer


@cache
def opened(name: str, control: tuple[tuple[str, int], ...], folder: Path) -> Tokenizer:
    (case,), setting = goldens.cases(f"tokenizers/{name}"), SETTINGS.get(name, Setting())
    place = unpack(case, setting, Path(mkdtemp(dir=folder)))
    return open_tokenizer(place, quirks=setting.quirks, control=dict(control))


def unstopped(entry: Json, row: Row, chat: ChatTemplate) -> str | None:
    """Return what the reference stops at and we do not."""
    if row.template or row.format is None:
        return None
    format_ = prompts.get(row.format)
    ours = {row.eos, *format_.stop, *(format_.tool_stop if row.tools else ())}
    if missing := [text for text in entry.get("stop") or [] if text not in ours]:
        return f"the reference stops at {missing}; ours at {sorted(ours)}"
    if row.tokenizer and (
        missing := [id for id in entry.get("stop_token_ids") or [] if id not in chat.stops]
    ):
        return f"the reference stops at the tokens {missing}; ours at {sorted(chat.stops)}"
    return None


def unlike_segments(entry: Json, row: Row) -> str | None:
    """Return where the authors' code encodes a piece of its own and our format does not say so."""
    format_ = prompts.get(row.format) if row.format else None
    if "segments" not in entry or not entry["authority"].startswith("authors"):
        return None
    if format_ is None or format_.template is not None:
        return None
    pieces = format_.render(
        [*entry["messages"]],
        generation=entry["options"].get("add_generation_prompt", True),
        tokens={"bos_token": row.bos, "eos_token": row.eos},
        values=row.values,
    )
    places, ours = 0, {0}
    for piece in pieces or []:
        ours |= {places} if piece.apart else set()
        places += len(piece.text)
    places, want = 0, set()
    for segment in entry["segments"]:
        want |= {places} if segment.get("kind") == "text" and segment["text"] else set()
        places += len(segment["text"])
    missing = sorted(want - ours)
    return (
        f"text {entry['text']!r}: pieces begin at {sorted(want)}, ours at {sorted(ours)}" if missing else None
    )


def test_every_format_is_used_or_published() -> None:
    """A format without a published template is some checkpoint's, or some reference's."""
    from bestiary import roster

    used = {one.prompt for entry in roster.entries().values() for one in entry.checkpoints}
    used |= {row.format for file in ROWS.glob("*.toml") for row in rows(file.stem)}
    assert {name for name, format_ in prompts.named().items() if not format_.templates} <= used
