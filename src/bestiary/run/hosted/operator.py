"""What an operator of hosted models offers, and how its pieces of text become the chunks of LLM.stream."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ...errors import HostedError, RequestError
from ..generate import Chunk, FinishReason
from ..outputs import RequestOutput
from ..params import SamplingParams, show
from ..stops import StopStrings

Json = dict[str, Any]
Vectors = list[list[float]]


@dataclass(frozen=True)
class Request:
    """One question, checked. path: where it goes. stops: what ends an answer and is no part of it."""

    prompt: str | None
    path: str
    body: Json
    stops: tuple[str, ...] = ()
    answers: int = 1


@dataclass(frozen=True)
class Piece:
    """A part of an answer, as it came. reason: set in the last one of its answer."""

    text: str
    reason: FinishReason | None = None
    index: int = 0


@dataclass(frozen=True)
class Usage:
    """Tokens as the operator counted them; None where it did not say."""

    prompt_tokens: int | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class Answered:
    """Whole answers to one request."""

    pieces: tuple[Piece, ...]
    usage: Usage


@dataclass(frozen=True)
class HostedOutput(RequestOutput):
    """The answers of a hosted model. No ids come with them: every list of token ids is empty."""

    usage: Usage = Usage()

    @property
    def prompt_tokens(self) -> int | None:
        """How long the prompt was, as the operator counted."""
        return self.usage.prompt_tokens

    @property
    def tokens(self) -> int | None:
        """How long the answers were, as the operator counted."""
        return self.usage.tokens


class Operator(Protocol):
    """Whoever computes hosted models.

    context: tokens of prompt and answer together, 0 where the operator does not say. The four methods that
    make and carry out requests raise RequestError before a connection is opened, and HostedError after.
    """

    name: str
    abilities: list[str]
    context: int

    def continuation(self, prompt: str | Sequence[int], params: SamplingParams) -> Request:
        """Return the request to continue a prompt."""

    def turn(self, messages: Sequence[Mapping[str, Any]], params: SamplingParams) -> Request:
        """Return the request to answer a conversation."""

    def ask(self, request: Request) -> Answered:
        """Return the answers, whole."""

    def listen(self, request: Request) -> Generator[Piece]:
        """Yield the answers as they come, side by side where there are several."""

    def embed(
        self, texts: Sequence[str], dimensions: int | None, normalize: bool | None
    ) -> Iterator[Vectors]:
        """Yield the vectors of a few texts after another, in their order."""

    def close(self) -> None:
        """Let go of connections."""


def placed(params: SamplingParams, places: Mapping[str, str], model: str) -> Json:
    """Return the fields of a request that an operator has a place for, by its names for them.

    places: our name -> the operator's. Raises RequestError, which names the field, for one that is set and
    has no place: an answer that was drawn otherwise than asked would look the same.
    """
    for field in dataclasses.fields(params):
        value = getattr(params, field.name)
        if field.name not in places and not _is_off(field.name, value, field.default):
            raise RequestError(
                f"{field.name}={show(value)}: {model} has no place for it; leave it out. "
                f"It takes {', '.join(places)}"
            )
    return {there: getattr(params, here) for here, there in places.items()}


def _is_off(name: str, value: object, default: object) -> bool:
    return value == default or value in (None, (), {}) or (name == "top_k" and value == -1)


def chunks(pieces: Iterable[Piece], request: Request, model: str) -> Iterator[Chunk]:
    """Yield the chunks of a request's answers, one answer after the other, without their stop strings.

    Ctrl-C gives one last chunk with what was held back, whose finish_reason is "abort", and is then raised.
    Raises HostedError for answers that end without a reason.
    """
    index, stops = 0, StopStrings(request.stops)
    try:
        for piece in _in_order(pieces, request.answers, model):
            if piece.index < index:
                continue  # of an answer that a stop string has ended
            text, hit = stops.push(piece.text)
            reason: FinishReason | None = "stop" if hit else piece.reason
            yield Chunk(text if hit or reason is None else text + stops.flush(), (), reason, piece.index)
            if reason is not None:
                index, stops = index + 1, StopStrings(request.stops)
                if index == request.answers:
                    return
    except KeyboardInterrupt:
        yield Chunk(stops.flush(), (), "abort", index)
        raise
    raise HostedError(
        model,
        f"answer {index + 1} of {request.answers} was cut off: the operator gave no reason for its end",
        remedy="Ask again",
    )


def _in_order(pieces: Iterable[Piece], answers: int, model: str) -> Iterator[Piece]:
    """Yield pieces answer by answer; those of a later one wait until the one before it has ended."""
    waiting = [deque[Piece]() for _ in range(answers)]
    index = 0
    for piece in pieces:
        if not 0 <= piece.index < answers:
            raise HostedError(model, f"answer {piece.index} came, and {answers} were asked for")
        waiting[piece.index].append(piece)
        while index < answers and waiting[index]:
            found = waiting[index].popleft()
            yield found
            index += found.reason is not None
