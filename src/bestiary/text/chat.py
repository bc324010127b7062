"""Chat templates: from a conversation to the tokens that a model reads, in which no text can forge a turn.

Elsewhere a prompt is rendered to one text and control tokens are found in it by their spelling, so a user who
types `<|im_end|>` ends the turn (huggingface/transformers#29279). Here every character of a prompt is known
to come from the template or from a message (`prompts`, `tracing`), and control tokens come from the template
alone (`literal`).

Tags in plain text, such as Llama 2's [INST], a message may spell too, in other tokens than the template's.
Where turns are marked by words alone ("User: "), a message may hold the same words; the control token that
ends an answer is still out of its reach.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from ..errors import BestiaryError, RequestError, TemplateError
from ..files import open_checkpoint, paths
from . import jinja, prompts
from .literal import LiteralEncoder
from .messages import Checker, Message, TextPart, replaced
from .spans import Span, spans
from .tokenizer import Tokenizer
from .tracing import TEMPLATE, Marks, Piece, joined

__all__ = ["ChatTemplate", "Message", "Prompt", "Span", "TextPart", "open_template"]

Json = Any
Marker = Callable[[str, int], str]  # text, owner -> text


@dataclass(frozen=True)
class Prompt:
    """A conversation as a model reads it.

    ids: the tokens. text: the same as text, in which control tokens stand as they are spelt.
    spans: whose each token is, in order; they cover all of `ids`.
    dropped: messages with text of which the template used nothing.
    """

    ids: list[int]
    text: str
    spans: list[Span]
    dropped: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Rendered:
    """A prompt as text. masked: with a blank for each character that may not be part of a control token.

    used: the owners of whose text something is in it.
    """

    pieces: list[Piece]
    text: str
    masked: str
    used: frozenset[int]


class ChatTemplate:
    """Turns conversations into prompts.

    Args:
        source: the Jinja template.
        tokenizer: of the model.
        tokens: "bos_token", "eos_token" and their kin -> spelling, or None for a model that has
            no such token; BOS and EOS are the tokenizer's where nothing is said.
        stops: ids that end an answer, beside those that the template and the tokenizer show.
        sandbox: where templates run that are not known as data.
    """

    def __init__(
        self,
        source: str,
        tokenizer: Tokenizer,
        *,
        tokens: Mapping[str, str | None] | None = None,
        stops: Iterable[int] = (),
        sandbox: jinja.Sandbox = jinja.shared,
    ) -> None:
        self.source = source
        self._tokenizer, self._sandbox = tokenizer, sandbox
        named = _end_tokens(tokenizer) | dict(tokens or {})
        self._tokens = {name: spelling for name, spelling in named.items() if spelling is not None}
        self._stops = frozenset(stops)
        self._format = prompts.find(source)
        self._encoder = LiteralEncoder(tokenizer)
        self._piece = lru_cache(maxsize=1 << 16)(tokenizer.piece)
        self._checker = Checker(source, self._encoder.pattern)

    @property
    def name(self) -> str:
        """The format's name, "jinja" for a template that is not known as data."""
        return self._format.name if self._format else "jinja"

    def encode(
        self,
        messages: Sequence[Mapping[str, Json]],
        *,
        generation: bool = True,
        tools: Sequence[Mapping[str, Json]] | None = None,
    ) -> Prompt:
        """Return the prompt for a conversation (see `Message`).

        BOS is in it where the template writes it, and nowhere else: `ids` go to the model as they are.

        Args:
            messages: the conversation.
            generation: end with what begins an answer.
            tools: descriptions of functions (JSON), for templates that have a place for them.

        Raises:
            RequestError: the messages are not possible, or the template refuses them; names the message.
            TemplateError: the template failed, or ran past its limits.
        """
        checked, described = self._checker.messages(messages), self._checker.tools(tools)
        rendered = self._render(checked, described, generation)
        encoded = self._encoder.encode(rendered.text, rendered.masked)
        roles = [message["role"] for message in checked]
        return Prompt(
            ids=[id for _, ids in encoded for id in ids],
            text=rendered.text,
            spans=spans(encoded, rendered.pieces, roles, self._piece),
            dropped=tuple(
                i
                for i, one in enumerate(checked)
                if i not in rendered.used and any(map(str.strip, _texts(one["content"])))
            ),
        )

    @cached_property
    def stops(self) -> frozenset[int]:
        """The ids that end an answer: EOS, and the control token that the template writes after one."""
        found = {*self._stops, *([] if self._tokenizer.eos is None else [self._tokenizer.eos])}
        probe = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]
        for messages in (probe, [*probe, *probe]):
            try:
                rendered = self._render(messages, None, False)
            except BestiaryError:
                continue  # a template that refuses the probe shows nothing
            place = 0
            for piece in rendered.pieces:
                place += len(piece.text)
                if piece.owner == 1:
                    rest = rendered.masked[place:].lstrip()
                    if match := self._encoder.pattern.match(rest):
                        found.add(self._tokenizer.control[match[0]])
                    break
        return frozenset(found)

    # Rendering.

    def _render(
        self, messages: list[dict[str, Json]], tools: list[dict[str, Json]] | None, generation: bool
    ) -> _Rendered:
        if self._format and not tools and self._format.fits(messages):
            pieces = self._format.render(messages, generation=generation, tokens=self._tokens)
            if pieces is not None:
                return self._rendered(pieces)
        return self._trace(messages, tools, generation)

    def _trace(
        self, messages: list[dict[str, Json]], tools: list[dict[str, Json]] | None, generation: bool
    ) -> _Rendered:
        """Render with Jinja, and find out whose each character is."""
        now = datetime.datetime.now()

        def render(mark: Marker) -> str:
            variables = {
                "messages": [_marked(message, i, mark) for i, message in enumerate(messages)],
                "tools": None if tools is None else replaced(tools, lambda text: mark(text, len(messages))),
                "documents": None,
                "add_generation_prompt": generation,
            }
            return self._sandbox.render(self.source, self._tokens | variables, now=now)

        text = render(lambda text, _: text)
        marks = Marks()
        try:
            traced = self._rendered(marks.read(render(marks.mark)))
        except RequestError as error:
            raise TemplateError(f"chat template: it refuses messages by what they say: {error}") from error
        return traced if traced.text == text else self._guarded(render, traced, messages)

    def _guarded(
        self, render: Callable[[Marker], str], traced: _Rendered, messages: list[dict[str, Json]]
    ) -> _Rendered:
        """Render a template that decides by what a message says, such as `'</think>' in content`.

        Marks all over the messages are in its way, so only the first character of what they spell is
        replaced. The marked prompt still tells which control tokens the template writes by itself.
        """
        guards, spelt = Marks(), self._encoder.spellings(traced.masked)

        def guard(text: str, owner: int) -> str:
            return guards.mark_at(text, owner, (match.start() for match in spelt.finditer(text)))

        guarded = self._rendered(guards.read(render(guard)))
        if self._encoder.controls(guarded.masked) != self._encoder.controls(traced.masked):
            raise TemplateError("chat template: it makes control tokens out of what messages say; refused")
        return _Rendered(_located(guarded.text, messages), guarded.text, guarded.masked, traced.used)

    def _rendered(self, pieces: list[Piece]) -> _Rendered:
        blank = self._encoder.blank
        masked = "".join(one.text if one.owner == TEMPLATE else blank * len(one.text) for one in pieces)
        return _Rendered(pieces, joined(pieces), masked, frozenset(one.owner for one in pieces))


def _marked(message: dict[str, Json], owner: int, mark: Marker) -> dict[str, Json]:
    return {
        key: value if key == "role" else replaced(value, lambda text: mark(text, owner))
        for key, value in message.items()
    }


def _located(text: str, messages: Sequence[Mapping[str, Json]]) -> list[Piece]:
    """Cut a text by owner where a message stands in it exactly once, in the order of the messages."""
    pieces, place = [], 0
    for i, message in enumerate(messages):
        for content in _texts(message["content"]):
            content = content.strip()
            if content and text.count(content, place) == 1:
                start = text.index(content, place)
                pieces += [Piece(text[place:start], TEMPLATE), Piece(content, i)]
                place = start + len(content)
    return [piece for piece in (*pieces, Piece(text[place:], TEMPLATE)) if piece.text]


def _texts(content: Json) -> list[str]:
    return [content] if isinstance(content, str) else [part["text"] for part in content or []]


def _end_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    spellings = {id: spelling for spelling, id in tokenizer.control.items()}
    ends = {"bos_token": tokenizer.bos, "eos_token": tokenizer.eos}
    return {
        name: spellings[id] if id in spellings else tokenizer.piece(id).decode(errors="replace")
        for name, id in ends.items()
        if id is not None
    }


# Where a model keeps its template.

_FILE_LIMIT = 16 << 20
_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


def open_template(
    path: str | Path, tokenizer: Tokenizer, *, sandbox: jinja.Sandbox = jinja.shared
) -> ChatTemplate | None:
    """Read a model's chat template; None if it has none.

    A .gguf file has it in its metadata (tokenizer.chat_template); a folder in chat_template.jinja, in
    tokenizer_config.json, in chat_template.json, or in its only .gguf file. Of several by name "default" is
    taken. A folder's generation_config.json adds to the tokens that end an answer, as do GGUF's eot and eom
    tokens.

    Raises:
        TemplateError: it cannot be read, or is longer than jinja.TEMPLATE_LIMIT.
        CheckpointError: the .gguf file cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        source, tokens, stops = _from_folder(path)
        files = [] if source is not None else sorted(path.glob("*.gguf"))
        if len(files) == 1:
            source, stops = _from_gguf(files[0])
    else:
        tokens = {}
        source, stops = _from_gguf(path)
    if source is None:
        return None
    if len(source) > jinja.TEMPLATE_LIMIT:
        raise TemplateError(
            f"{path}: chat template of {len(source)} characters; {jinja.TEMPLATE_LIMIT} are the limit"
        )
    return ChatTemplate(source, tokenizer, tokens=tokens, stops=stops, sandbox=sandbox)


def _from_gguf(file: Path) -> tuple[str | None, list[int]]:
    with open_checkpoint(file) as checkpoint:
        metadata = checkpoint.metadata
    source = metadata.get("tokenizer.chat_template")
    stops = [metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eot", "eom")]
    return (source if isinstance(source, str) else None), [id for id in stops if isinstance(id, int)]


def _from_folder(folder: Path) -> tuple[str | None, dict[str, str | None], list[int]]:
    config = _json(folder / "tokenizer_config.json")
    source = _chosen(folder, config.get("chat_template"))
    if (folder / "chat_template.json").exists():
        source = source or _chosen(folder, _json(folder / "chat_template.json").get("chat_template"))
    if (file := folder / "chat_template.jinja").exists():
        try:
            source = paths.read_bytes(file, limit=4 * jinja.TEMPLATE_LIMIT).decode()
        except (BestiaryError, UnicodeDecodeError) as error:
            raise TemplateError(f"{file}: the chat template cannot be read: {error}") from error
    tokens = {}
    for name in _NAMED:
        if name in config:
            value = config[name].get("content") if isinstance(config[name], dict) else config[name]
            tokens[name] = value if isinstance(value, str) else None
    ends = _json(folder / "generation_config.json").get("eos_token_id")
    return source, tokens, [id for id in (ends if isinstance(ends, list) else [ends]) if type(id) is int]


def _chosen(folder: Path, value: Json) -> str | None:
    """Return the default one of what chat_template says: a text, or a list of texts with names."""
    if not isinstance(value, list):
        return value if isinstance(value, str) else None
    named = {str(one.get("name")): one.get("template") for one in value if isinstance(one, dict)}
    default = named.get("default")
    if not isinstance(default, str):
        raise TemplateError(
            f"{folder}: of its chat templates ({', '.join(named)[:200]}) none is called default"
        )
    return default


def _json(file: Path) -> dict[str, Json]:
    if not file.exists():
        return {}
    try:
        return paths.read_json(file, limit=_FILE_LIMIT)
    except BestiaryError as error:
        raise TemplateError(f"the chat template cannot be read: {error}") from error
