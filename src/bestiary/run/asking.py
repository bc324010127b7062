"""From what is asked to ids: a prompt or a conversation, written as the model reads it.

It needs the tokenizer, the chat template and a few facts of the model, and no weights: a server asks in one
process, and computes in another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..errors import RequestError
from ..text import blanks
from ..text.chat import ChatTemplate
from ..text.shown import Shown
from ..text.stream import StreamDecoder
from ..text.tokenizer import Tokenizer
from .grammar import Grammars
from .room import Room
from .vocabulary import Rules, Vocabulary

# A prompt as text, or as ids where the caller decides what is a control token.
TextOrIds = str | Sequence[int]
# Messages (text.chat.Message says what may be in one) and tools are plain dictionaries.
Conversation = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Facts:
    """What of a model a prompt must know.

    name: what errors call it. size: how many ids have a text. ends: the model's own end tokens. rules: what
    its files say of its answers. room: its context. abilities: what can be asked of it (LLM.abilities).
    """

    name: str
    size: int
    ends: frozenset[int]
    rules: Rules
    room: Room
    abilities: tuple[str, ...] = ()

    @property
    def answers(self) -> bool:
        """Whether it answers a source (an encoder-decoder) rather than continue a prompt."""
        return self.room.start is not None


@dataclass(frozen=True)
class Request:
    """A prompt that is ready to run.

    text: as it was written for the model; None where ids were given. continues: whether the answer goes on in
    the middle of a text. ends: the tokens that end it. stops: texts that do, beside them. shows: control
    tokens that the answer's text shows, as calls of functions are written with them.
    """

    text: str | None
    ids: list[int]
    continues: bool
    ends: frozenset[int]
    stops: tuple[str, ...] = ()
    shows: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Asker:
    """Writes requests for one model."""

    tokenizer: Tokenizer
    template: ChatTemplate | None
    facts: Facts
    reads_blanks: bool = field(init=False)
    grammars: Grammars = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads_blanks", blanks.reads(self.tokenizer))
        object.__setattr__(self, "grammars", Grammars(self.tokenizer))

    def continuation(self, prompt: TextOrIds) -> Request:
        """Return the request to continue a prompt, or to answer a source; see LLM.generate."""
        ends, continues = self.facts.ends, not self.facts.answers
        if not isinstance(prompt, str):
            return Request(None, list(prompt), continues, ends)
        if self.reads_blanks:
            return Request(prompt, blanks.encode(self.tokenizer, prompt), continues, ends)
        ids, around = self.tokenizer.encode(prompt), self.tokenizer.around
        whole = around.wrap(ids).ids if self.facts.answers else around.starts() + ids
        return Request(prompt, whole, continues, ends)

    def turn(self, messages: Conversation, tools: Tools | None = None) -> Request:
        """Return the request for the next answer in a conversation; see LLM.chat.

        Raises RequestError for a model without a chat template.
        """
        template = self.template
        if template is None:
            raise RequestError(
                f"{self.facts.name} has no chat template: it is a base model, or its files lack it. "
                "Use generate, or say how to ask: LLM(..., chat_template='vicuna-v1.1'), or a file of Jinja"
            )
        prompt = template.encode(messages, tools=tools)
        stops = template.tool_stop_texts if tools else template.stop_texts
        ends, control = self.facts.ends | template.stops, self.tokenizer.control
        spelt = template.calls.control if tools and template.calls else ()
        shows = frozenset(control[one] for one in spelt if one in control) - ends
        return Request(prompt.text, prompt.ids, False, ends, tuple(stops), shows)

    def vocabulary(self, request: Request) -> Vocabulary:
        """Return what the answer to a request is chosen from."""
        stream = partial(self._decoder, request)
        grammar = partial(self.grammars.constraint, continues=request.continues)
        encode, rules = self.tokenizer.encode, self.facts.rules
        return Vocabulary(self.facts.size, request.ends, stream, encode, rules, grammar)

    def _decoder(self, request: Request) -> StreamDecoder:
        if not request.shows:
            return self.tokenizer.stream(continues=request.continues)
        shown = {id: spelt for spelt, id in self.tokenizer.control.items() if id in request.shows}
        inner = self.tokenizer.stream
        return Shown(lambda inside: inner(continues=inside), shown, continues=request.continues)
