"""A hosted model with the methods of LLM: the same answers and chunks, and clear refusals of the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from os import PathLike
from pathlib import Path
from typing import NoReturn, cast

import torch

from ...errors import HostedError, RequestError
from ..asking import Conversation, TextOrIds, Tools
from ..encode import Progress as Told
from ..generate import Chunk
from ..llm import LLM, is_conversation, listed, several
from ..outputs import RequestOutput, collect
from ..params import SamplingParams, show
from ..session import Session
from . import Name, named
from .bedrock import Titan
from .openai import OpenAI
from .operator import HostedOutput, Operator, Request, chunks

# What an LLM has because its model is here.
_NOT_HERE = {
    "path": "it is its operator's, and no file",
    "template": "its operator writes the prompt",
    "tokenizer": "its tokenizer is its operator's",
    "tuning": "its weights are its operator's",
}


class Hosted(LLM):
    """What LLM(name) is for a hosted model: the operator named computes, and what is asked goes there.

    It can generate, chat, stream and embed, as far as its operator does. No token ids come back: those of
    chunks and outputs are empty, and outputs count tokens as the operator says (`usage`). What needs the
    model itself (sessions, beam search, log-probabilities, tags, masks, the tokenizer) raises RequestError.

    model: "bedrock:MODEL", "openai:MODEL@https://host/v1", or a hosted system of the roster. chat_template:
    of Titan, the name of a format. The other arguments of LLM say how to compute here, and are refused.

    Keys come from the environment: for Bedrock as boto3 finds them, else from BESTIARY_OPENAI_API_KEY; from
    OPENAI_API_KEY for OpenAI's own address alone.
    """

    def __init__(
        self,
        model: str | PathLike[str],
        *,
        device: str = "auto",
        dtype: str = "auto",
        context: int | None = None,
        threads: int | None = None,
        chat_template: str | Path | None = None,
        adapter: object = None,
        progress: object = None,
    ) -> None:
        name = named(model)
        if name is None:
            raise RequestError(f"{model} is no hosted model\nTry: openai:MODEL@https://host/v1")
        given = {"device": device, "dtype": dtype, "context": context, "threads": threads, "adapter": adapter}
        for key, value in given.items():
            if value not in (None, "auto"):
                raise RequestError(
                    f"{key}={show(value)} has no effect here: {name} is computed by its operator"
                )
        self._operator: Operator | None = _operator(name, chat_template)
        self.name, self.context = str(name), self._operator.context

    def __getattr__(self, name: str) -> NoReturn:
        if name in _NOT_HERE:
            raise RequestError(f"{self.name} has no {name} here: {_NOT_HERE[name]}")
        raise AttributeError(f"a hosted model has no attribute {name!r}")

    @property
    def operator(self) -> Operator:
        """Whoever computes. Raises RequestError after close."""
        if self._operator is None:
            raise RequestError("this model was closed; open it again")
        return self._operator

    @property
    def abilities(self) -> list[str]:
        """What can be asked of this model, as far as its name tells: embed, generate, or both."""
        return self.operator.abilities

    def generate(
        self, prompts: TextOrIds | Sequence[TextOrIds], params: SamplingParams | None = None
    ) -> list[RequestOutput]:
        """Continue a prompt, or each of several: a request each, one after the other.

        Raises RequestError, before anything is sent, for a field of params that the operator has no place
        for; HostedError for what goes wrong there.
        """
        params = params or SamplingParams()
        return self._ask([self.operator.continuation(prompt, params) for prompt in listed(prompts)])

    def chat(
        self,
        messages: Conversation | Sequence[Conversation],
        params: SamplingParams | None = None,
        *,
        tools: Tools | None = None,
        session: Session | None = None,
    ) -> list[RequestOutput]:
        """Answer a conversation, or each of several. Raises as generate does, and for tools and sessions."""
        _refuse(self.name, tools, session)
        params = params or SamplingParams()
        alone = len(messages) == 0 or is_conversation(messages)
        every = cast(Sequence[Conversation], [messages] if alone else messages)
        return self._ask([self.operator.turn(one, params) for one in every])

    def stream(
        self,
        prompt: TextOrIds | Conversation,
        params: SamplingParams | None = None,
        *,
        tools: Tools | None = None,
        session: Session | None = None,
    ) -> Iterator[Chunk]:
        """Continue a prompt or answer a conversation, a chunk whenever one comes.

        The connection is opened with the first chunk, and closed with the last one or with the iterator.
        Raises RequestError at the call, HostedError on the way; Ctrl-C as for LLM.
        """
        _refuse(self.name, tools, session)
        params = params or SamplingParams()
        if is_conversation(prompt):
            request = self.operator.turn(cast(Conversation, prompt), params)
        else:
            request = self.operator.continuation(cast(TextOrIds, prompt), params)
        return self._listen(request)

    def checked(self, messages: Conversation) -> None:
        """Raise the RequestError that asking this would raise; nothing is sent."""
        self.operator.turn(messages, SamplingParams(temperature=0))

    def embed(
        self,
        texts: str | Sequence[str],
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        truncate: bool = False,
        progress: Told | None = None,
        dimensions: int | None = None,
        normalize: bool | None = None,
    ) -> torch.Tensor:
        """Return the vectors of a text, or of each of several: float32 (N, dim).

        dimensions: of a vector, where the model lets one choose; normalize: to length 1 (Titan's second
        version; its own default is yes). prompt: what to put before each text. prompt_name and truncate are
        of models that are here. Raises as generate does.
        """
        if prompt_name is not None or truncate:
            what = "prompt_name" if prompt_name is not None else "truncate"
            raise RequestError(f"{what}: {self.name} has no place for it; leave it out")
        given = [f"{prompt or ''}{text}" for text in several(texts)]
        if not given or not all(given):
            raise RequestError("there is a text with nothing in it" if given else "there is no text")
        found: list[list[float]] = []
        for some in self.operator.embed(given, dimensions, normalize):
            found += some
            if progress is not None:
                progress(len(found), len(given))
        return self._matrix(found)

    def close(self) -> None:
        """Let go of connections."""
        if self._operator is not None:
            self._operator.close()
            self._operator = None

    def _ask(self, requests: Sequence[Request]) -> list[RequestOutput]:
        found = list[RequestOutput]()
        for request in requests:
            answered = self.operator.ask(request)
            outputs = collect(chunks(answered.pieces, request, self.name))
            found.append(HostedOutput(request.prompt, [], outputs, answered.usage))
        return found

    def _listen(self, request: Request) -> Iterator[Chunk]:
        with closing(self.operator.listen(request)) as pieces:
            yield from chunks(pieces, request, self.name)

    def _matrix(self, rows: Sequence[object]) -> torch.Tensor:
        """Return vectors as one tensor. Raises HostedError for what is none."""
        widths = {len(row) if isinstance(row, list) else 0 for row in rows}
        if len(widths) != 1 or 0 in widths:
            raise HostedError(self.name, f"its vectors have {sorted(widths)} numbers: they are no matrix")
        for row in cast(Sequence[list[object]], rows):
            if not all(type(x) in (int, float) for x in row):  # no bool; JSON of ours has no NaN
                raise HostedError(self.name, "a vector of its answer holds something else than numbers")
        return torch.tensor(rows, dtype=torch.float32)

    def _absent(self) -> NoReturn:
        raise RequestError(
            f"{self.name} is computed by its operator, who gives texts and vectors: scores, beams, classes, "
            "tags, masks, sessions and the model itself need one that is on this machine"
        )

    @property
    def loaded(self) -> NoReturn:
        """Raise RequestError: no weights are here."""
        self._absent()

    @property
    def reader(self) -> NoReturn:
        """Raise RequestError: nothing here reads."""
        self._absent()


def _operator(name: Name, chat_template: str | Path | None) -> Operator:
    if name.operator == "bedrock":
        return Titan(name, None if chat_template is None else str(chat_template))
    if chat_template is not None:
        raise RequestError(f"chat_template={show(chat_template)} has no effect here: {name} has its own")
    return OpenAI(name)


def _refuse(name: str, tools: object, session: object) -> None:
    if tools:
        raise RequestError(
            f"tools: an operator's calls of tools are no text, and {name} is asked for text alone"
        )
    if session is not None:
        raise RequestError(f"session: {name} remembers nothing between two turns; leave it out")
