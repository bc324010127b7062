"""Any address that speaks OpenAI's protocol: /completions, /chat/completions and /embeddings.

Source: OpenAI's API reference, whose protocol vLLM, llama.cpp, Ollama, Together and others answer too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ...errors import HostedError, RequestError
from ...text.messages import Checker
from ..generate import FinishReason
from ..params import SamplingParams, show
from . import Name
from .endpoint import Endpoint
from .operator import Answered, Json, Piece, Request, Usage, Vectors, placed

KEY, OPENAI_KEY = "BESTIARY_OPENAI_API_KEY", "OPENAI_API_KEY"

_COMPLETIONS, _CHAT = "/completions", "/chat/completions"
# Our field -> theirs. These two are always sent, for operators differ in what they take unless told.
_ALWAYS = {"temperature": "temperature", "top_p": "top_p"}
_WHERE_SET = {
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "logit_bias": "logit_bias",
    "stop": "stop",
    "seed": "seed",
    "n": "n",
}
_IDLE: tuple[object, ...] = (0.0, None, (), {})
_REASONS: Mapping[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",  # Together's word for an end token
    "length": "length",
    "content_filter": "content_filter",
    "abort": "abort",  # vLLM
}
_ROLES = ("system", "developer", "user", "assistant")
_KEYS = frozenset({"role", "content", "name"})
_TEXTS = 64  # in one request for vectors


class OpenAI:
    """One model at one address. Raises RequestError for an address that cannot be used."""

    def __init__(self, name: Name) -> None:
        address = name.address or ""
        self.name, self._model = str(name), name.model
        self.abilities, self.context = ["embed", "generate"], 0  # nothing tells which, and how long
        host = urlsplit(address).hostname or ""
        self._own = host == "openai.com" or host.endswith(".openai.com")
        self._endpoint = Endpoint(address, _key(own=self._own), model=self.name)

    def continuation(self, prompt: str | Sequence[int], params: SamplingParams) -> Request:
        """Return the request to continue a text, or ids of the operator's own tokens."""
        if len(prompt) == 0:
            raise RequestError("the prompt is empty; give at least one token")
        if params.max_tokens is None:
            raise RequestError(f"max_tokens=None: {self.name} stops after 16 tokens then; give a number")
        text = isinstance(prompt, str)
        body = {"prompt": prompt if text else list(prompt), "max_tokens": params.max_tokens}
        return self._request(str(prompt) if text else None, _COMPLETIONS, body, params)

    def turn(self, messages: Sequence[Mapping[str, Any]], params: SamplingParams) -> Request:
        """Return the request to answer a conversation. The operator's own template writes the prompt."""
        checked = Checker("", re.compile("(?!)")).messages(messages)
        for i, message in enumerate(checked):
            if message["role"] not in _ROLES:
                raise RequestError(f"message {i}: role {message['role']!r} is none of {', '.join(_ROLES)}")
            if more := sorted(message.keys() - _KEYS):
                raise RequestError(f"message {i}: {more[0]} has no place here; tools are not spoken of")
        # OpenAI's newer models refuse the old name, and others do not know the new one.
        length = "max_completion_tokens" if self._own else "max_tokens"
        body: Json = {"messages": checked}
        if params.max_tokens is not None:
            body[length] = params.max_tokens
        return self._request(None, _CHAT, body, params)

    def _request(self, prompt: str | None, path: str, body: Json, params: SamplingParams) -> Request:
        found = placed(params, {**_ALWAYS, **_WHERE_SET, "max_tokens": "max_tokens"}, self.name)
        body = {"model": self._model, **body, **{name: found[name] for name in _ALWAYS.values()}}
        for name in _WHERE_SET.values():
            if found[name] not in _IDLE and (name, found[name]) != ("n", 1):
                body[name] = found[name]
        return Request(prompt, path, body, tuple(params.stop or ()), params.n)

    def ask(self, request: Request) -> Answered:
        """Return the answers, whole."""
        said = self._endpoint.post(request.path, request.body)
        choices = self._choices(said)
        pieces = tuple(self._piece(choice, "message") for choice in choices)
        if unfinished := [piece for piece in pieces if piece.reason is None]:
            raise HostedError(self.name, f"answer {unfinished[0].index} has no finish_reason")
        usage = said.get("usage")
        counted = usage if isinstance(usage, dict) else {}
        return Answered(
            pieces, Usage(*(_whole(counted.get(f"{of}_tokens")) for of in ("prompt", "completion")))
        )

    def listen(self, request: Request) -> Generator[Piece]:
        """Yield the answers as they come."""
        for event in self._endpoint.events(request.path, {**request.body, "stream": True}):
            if event.data.strip() == b"[DONE]":
                return
            said = self._endpoint.json(event.data)
            if event.kind == "error" or (isinstance(said, dict) and said.get("error") is not None):
                self._endpoint.failed(said)
            for choice in self._choices(said):
                yield self._piece(choice, "delta")

    def embed(
        self, texts: Sequence[str], dimensions: int | None, normalize: bool | None
    ) -> Iterator[Vectors]:
        """Yield the vectors of 64 texts after another."""
        if normalize is not None:
            raise RequestError(f"normalize={show(normalize)}: {self.name} has no place for it; leave it out")
        how = {"model": self._model, "encoding_format": "float"}
        more = {} if dimensions is None else {"dimensions": dimensions}
        for start in range(0, len(texts), _TEXTS):
            some = list(texts[start : start + _TEXTS])
            yield self._vectors(self._endpoint.post("/embeddings", {**how, "input": some, **more}), len(some))

    def close(self) -> None:
        """Do nothing: each request has a connection of its own."""

    def _choices(self, said: Any) -> list[Json]:
        """Return the choices of an answer or of an event; an event may have none (of usage alone)."""
        choices = said.get("choices") if isinstance(said, dict) else None
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            raise HostedError(self.name, "its answer holds no list of choices: this is not OpenAI's protocol")
        return choices

    def _piece(self, choice: Json, of: str) -> Piece:
        """Return what a choice adds. of: where a chat's text stands, "message" or "delta".

        Thoughts beside the text (reasoning_content) are no part of the answer.
        """
        index, inner = choice.get("index", 0), choice.get(of)
        held = inner if isinstance(inner, dict) else {}
        if held.get("refusal"):
            raise HostedError(self.name, "the model refuses to answer", code="refusal")
        if held.get("tool_calls") or held.get("function_call"):
            raise HostedError(self.name, "it called a tool, and none was offered", code="tool_calls")
        text = held.get("content") if isinstance(inner, dict) else choice.get("text")
        text = "" if text is None and (held or choice.get("finish_reason")) else text
        if not isinstance(text, str) or not isinstance(index, int) or isinstance(index, bool):
            raise HostedError(
                self.name, "a choice of its answer holds no text: this is not OpenAI's protocol"
            )
        return Piece(text, self._reason(choice.get("finish_reason")), index)

    def _reason(self, said: object) -> FinishReason | None:
        if said is None:
            return None
        if not isinstance(said, str) or said not in _REASONS:
            known = ", ".join(_REASONS)
            raise HostedError(self.name, f"an answer ended with {show(said)}, which is none of {known}")
        return _REASONS[said]

    def _vectors(self, said: Any, count: int) -> Vectors:
        rows = said.get("data") if isinstance(said, dict) else None
        found: dict[Any, Any] = {row["index"]: row["embedding"] for row in rows or () if _is_vector(row)}
        if not isinstance(rows, list) or len(rows) != count or found.keys() != set(range(count)):
            raise HostedError(
                self.name, f"its answer holds no {count} vectors: this is not OpenAI's protocol"
            )
        return [found[i] for i in range(count)]


def _key(*, own: bool) -> str | None:
    """Return the key for an address. own: it is OpenAI's, the only one that OpenAI's key is sent to."""
    return os.environ.get(KEY) or (os.environ.get(OPENAI_KEY) if own else None) or None


def _is_vector(row: object) -> bool:
    return (
        isinstance(row, dict) and isinstance(row.get("index"), int) and isinstance(row.get("embedding"), list)
    )


def _whole(said: object) -> int | None:
    return said if isinstance(said, int) and not isinstance(said, bool) else None
