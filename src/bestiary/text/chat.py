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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any

from ..errors import BestiaryError, RequestError, TemplateError
from . import calls, jinja, prompts
from .literal import LiteralEncoder
from .messages import Checker, Message, TextPart, replaced
from .prompts import Format
from .spans import Part, Span, learned, parts, spans
from .tokenizer import Tokenizer
from .tracing import TEMPLATE, Marks, Piece, joined

__all__ = ["ChatTemplate", "Message", "Prompt", "Span", "TextPart"]

Json = Any
Marker = Callable[[str, int], str]  # text, owner -> text
_CUT = "\ufdd0"  # the variable `cut` of a format's template: a code point that is no character


@dataclass(frozen=True)
class Prompt:
    """A conversation as a model reads it.

    ids: the tokens. text: the same as text, in which control tokens stand as they are spelt.
    spans: whose each token is, in order; they cover all of `ids`.
    dropped: messages with text of which the template used nothing.
    parts: the text by role. spaces: those of `ids` that are white space alone.
    """

    ids: list[int]
    text: str
    spans: list[Span]
    dropped: tuple[int, ...] = ()
    parts: tuple[Part, ...] = ()
    spaces: frozenset[int] = frozenset()

    def learned(self, stops: frozenset[int]) -> list[bool]:
        """Return which tokens a model is trained on: answers, and the token of `stops` that ends each."""
        return learned(self.ids, self.spans, stops, self.spaces)


@dataclass(frozen=True)
class _Rendered:
    """A prompt as text. masked: with a blank for each character that may not be part of a control token.

    used: the owners of whose text something is in it. apart: where the tokenizer begins afresh.
    """

    pieces: list[Piece]
    text: str
    masked: str
    used: frozenset[int]
    apart: frozenset[int] = frozenset()


class ChatTemplate:
    """Turns conversations into prompts.

    Args:
        source: the Jinja template, or a format (`prompts.get("vicuna")`).
        tokenizer: of the model.
        tokens: "bos_token", "eos_token" and their kin -> spelling, or None for a model that has
            no such token; BOS and EOS are the tokenizer's where nothing is said.
        stops: ids that end an answer, beside those that the template and the tokenizer show.
        sandbox: where templates run that are not known as data.
    """

    def __init__(
        self,
        source: str | Format,
        tokenizer: Tokenizer,
        *,
        tokens: Mapping[str, str | None] | None = None,
        stops: Iterable[int] = (),
        sandbox: jinja.Sandbox = jinja.shared,
    ) -> None:
        self._format = source if isinstance(source, Format) else prompts.find(source)
        self._named = isinstance(source, Format)
        self.source = source if isinstance(source, str) else source.template or ""
        self._tokenizer, self._sandbox = tokenizer, sandbox
        named = _end_tokens(tokenizer) | dict(tokens or {})
        self._tokens = {name: spelling for name, spelling in named.items() if spelling is not None}
        self._stops = frozenset(stops)
        if self._named and self._format is not None:
            missing = [token for token in self._format.needs if token not in tokenizer.control]
            if missing:
                raise TemplateError(
                    f"the format {self._format.name} needs the token {missing[0]!r}, which this model's "
                    "tokenizer has not: it is another model's format"
                )
        self._encoder = LiteralEncoder(tokenizer)
        self._piece = lru_cache(maxsize=1 << 16)(tokenizer.piece)
        self._checker = Checker(source.words if isinstance(source, Format) else source, self._encoder.pattern)

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's."""
        return self._tokenizer

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
        values: Mapping[str, str] | None = None,
    ) -> Prompt:
        """Return the prompt for a conversation (see `Message`).

        `ids` go to the model as they are. BOS is among them where the template writes it, or the format says
        that the tokenizer puts it there.

        Args:
            messages: the conversation.
            generation: end with what begins an answer.
            tools: descriptions of functions (JSON), for templates that have a place for them.
            values: what a format asks for beside messages, such as a date.

        Raises:
            RequestError: the messages are not possible, or the template refuses them; names the message.
            TemplateError: the template failed, or ran past its limits.
        """
        values, tools = self._told(values, tools)
        checked, described = self._checked(messages, values), self._checker.tools(tools)
        rendered = self._render(checked, described, generation, values)
        encoded = self._encoder.encode(rendered.text, rendered.masked, rendered.apart)
        roles = [message["role"] for message in checked]
        ids = [id for _, ids in encoded for id in ids]
        found = spans(encoded, rendered.pieces, roles, self._piece)
        if self._named and self._format is not None and self._format.wraps:
            ids, found = self._wrapped(ids, found)
        return Prompt(
            ids=ids,
            text=rendered.text,
            spans=found,
            dropped=tuple(_unused(checked, rendered.used)),
            parts=tuple(parts(rendered.pieces, roles, self._encoder.pattern)),
            spaces=frozenset(id for id in set(ids) if self._piece(id).isspace()),
        )

    def _told(
        self, values: Mapping[str, str] | None, tools: Sequence[Mapping[str, Json]] | None
    ) -> tuple[Mapping[str, str] | None, Sequence[Mapping[str, Json]] | None]:
        """Tell of tools by values, where the format does."""
        if not tools or not self._named or self._format is None or not self._format.plugins:
            return values, tools
        return {**self._format.told(tools), **(values or {})}, None

    def _checked(
        self, messages: Sequence[Mapping[str, Json]], values: Mapping[str, str] | None
    ) -> list[dict[str, Json]]:
        """Return the messages as they are rendered. Raises RequestError for impossible ones."""
        if values and not self._named:
            raise RequestError(
                "values are for formats that go by a name; this model brings a template of its own"
            )
        checked = self._checker.messages(messages)
        return self._format.written(checked) if self._named and self._format is not None else checked

    def _wrapped(self, ids: list[int], found: list[Span]) -> tuple[list[int], list[Span]]:
        """Put around a prompt what the tokenizer puts around a text."""
        before = len(self._tokenizer.around.starts())
        whole = self._tokenizer.around.wrap(ids).ids
        moved = [replace(span, start=span.start + before, end=span.end + before) for span in found]
        ends = [(0, before), (before + len(ids), len(whole))]
        first, last = ([Span(start, end)] if end > start else [] for start, end in ends)
        return whole, [*first, *moved, *last]

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """The texts that end an answer where the format marks turns by words: "###", "USER:"."""
        said = self._format.stop if self._named and self._format else ()
        return tuple(text for text in said if text not in self._tokenizer.control)

    @property
    def tool_stop_texts(self) -> tuple[str, ...]:
        """The texts that end an answer where there are tools: "Observation:" is what a tool would say."""
        return (*self.stop_texts, *(self._format.tool_stop if self._named and self._format else ()))

    @cached_property
    def calls(self) -> calls.Style | None:
        """The form in which this template's models write calls of functions; None where it teaches none."""
        return calls.of(self.source)

    @cached_property
    def stops(self) -> frozenset[int]:
        """The ids that end an answer: EOS, and the control token that the template writes after one."""
        found = {*self._stops, *([] if self._tokenizer.eos is None else [self._tokenizer.eos])}
        if self._named and self._format is not None:
            control = self._tokenizer.control
            found |= {control[text] for text in self._format.stop if text in control}
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
                    # Where nothing stands after an answer, the next turn may begin with BOS, which ends none.
                    match = self._encoder.pattern.match(rest)
                    if match and (id := self._tokenizer.control[match[0]]) != self._tokenizer.bos:
                        found.add(id)
                    break
        return frozenset(found)

    # Rendering.

    def _render(
        self,
        messages: list[dict[str, Json]],
        tools: list[dict[str, Json]] | None,
        generation: bool,
        values: Mapping[str, str] | None = None,
    ) -> _Rendered:
        format_ = self._format
        if self._named and format_ is not None and format_.template is None:
            format_.check(messages)
        if format_ and format_.template is None and not tools and (self._named or format_.fits(messages)):
            pieces = format_.render(messages, generation=generation, tokens=self._tokens, values=values)
            if pieces is not None:
                return self._rendered(pieces)
            if self._named:
                raise TemplateError(
                    f"the format {format_.name} needs a BOS or EOS token; this model has none"
                )
        said = format_.filled(values) if self._named and format_ is not None else {}
        return self._trace(messages, tools, generation, said)

    def _trace(
        self,
        messages: list[dict[str, Json]],
        tools: list[dict[str, Json]] | None,
        generation: bool,
        values: Mapping[str, str],
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
            if self._named:
                variables |= {"cut": _CUT} | {
                    name: mark(text, len(messages) + 1) for name, text in values.items()
                }
            return self._sandbox.render(self.source, self._tokens | variables, now=now)

        text = render(lambda text, _: text).replace(_CUT, "")
        marks = Marks()
        try:
            traced = self._rendered(marks.read(render(marks.mark)))
        except RequestError as error:
            raise TemplateError(f"chat template: it refuses messages by what they say: {error}") from error
        return traced if traced.text.replace(_CUT, "") == text else self._guarded(render, traced, messages)

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
        if self._named and self.source:
            pieces = _cut(pieces)
        masked = "".join(one.text if one.owner == TEMPLATE else blank * len(one.text) for one in pieces)
        starts = accumulate((len(one.text) for one in pieces), initial=0)
        apart = frozenset(start for start, one in zip(starts, pieces, strict=False) if one.apart)
        return _Rendered(pieces, joined(pieces), masked, frozenset(one.owner for one in pieces), apart)


def _cut(pieces: Iterable[Piece]) -> list[Piece]:
    """Take the signs out by which a format's template says where the tokenizer begins afresh."""
    found: list[Piece] = []
    apart = False
    for piece in pieces:
        parts = piece.text.split(_CUT) if piece.owner == TEMPLATE else [piece.text]
        for i, part in enumerate(parts):
            apart = apart or i > 0
            if part:
                found.append(Piece(part, piece.owner, apart))
                apart = False
    return found


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


def _unused(messages: Sequence[Mapping[str, Json]], used: Collection[int]) -> Iterator[int]:
    """Yield the messages with text of which nothing was used."""
    for i, message in enumerate(messages):
        if i not in used and any(map(str.strip, _texts(message["content"]))):
            yield i


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
