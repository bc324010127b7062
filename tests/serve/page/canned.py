"""A server that gives the package's page, with its headers, and what a test wrote as the API's answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from bestiary import roster
from bestiary.serve.routes import page

NAME = "smollm2"
CONTEXT = 8192
_START = 20.0  # seconds


@dataclass(frozen=True)
class Answer:
    """What is said to one request. pieces: an event each; a token is a piece, or bytes of half a character.

    status and error: a refusal in place of an answer. breaks: the stream ends without its end; fails: with an
    event that tells of an error. endless: the pieces again and again until nobody reads them.
    """

    pieces: tuple[str | bytes, ...] = ("Hello", " there", ".")
    pause: float = 0.0
    finish: str = "stop"
    status: int = 200
    error: str = ""
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    breaks: bool = False
    fails: str = ""
    endless: bool = False


@dataclass
class Canned:
    """What a test says and what it was asked."""

    port: int = 0
    key: str = ""
    chats: bool = True
    abilities: list[str] = field(default_factory=lambda: ["embed", "generate", "score"])
    sampling: dict[str, float] = field(default_factory=dict)
    adapters: list[str] = field(default_factory=list)
    entry: str | None = NAME
    answers: list[Answer] = field(default_factory=list)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    ended: int = 0  # streams that were read no further

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def bodies(self, path: str) -> list[Any]:
        """What was asked of one path, first to last."""
        return [body for one, body in self.asked if one == path]

    def clear(self) -> None:
        """Be as at first, for the next test."""
        fresh = Canned(self.port)
        for name, value in vars(fresh).items():
            setattr(self, name, value)

    # Routes.

    async def models(self, http: Request) -> Response:
        if refusal := self._refusal(http):
            return refusal
        shared: dict[str, Any] = {"object": "model", "created": 0, "owned_by": "bestiary", "context": CONTEXT}
        can = {**shared, "abilities": self.abilities, "sampling": self.sampling}
        base = {**can, "id": NAME, "adapters": self.adapters, "parent": None}
        named = [{**can, "id": one, "adapters": [], "parent": NAME} for one in self.adapters]
        return JSONResponse({"object": "list", "data": [base, *named]})

    async def card(self, http: Request) -> Response:
        entry = None if self.entry is None else roster.find(self.entry)
        return JSONResponse({"id": NAME, "entry": None if entry is None else _plain(entry)})

    async def render(self, http: Request) -> Response:
        body = await http.json()
        self.asked.append(("render", body))
        if "messages" not in body:
            tokens = [_token(text, control=False) for text in _split(body["prompt"])]
            return JSONResponse({**_rendered(tokens), "template": None})
        if not self.chats:
            return JSONResponse(_error("no template", "no_chat_template"), 400)
        tokens = []
        for message in body["messages"]:
            tokens += [_token("<|im_start|>", control=True)]
            tokens += [
                _token(text, control=False) for text in _split(f"{message['role']}\n{message['content']}")
            ]
            tokens += [_token("<|im_end|>", control=True), _token("\n", control=False)]
        tokens += [_token("<|im_start|>", control=True), _token("assistant\n", control=False)]
        return JSONResponse({**_rendered(tokens), "template": "chatml-smollm2"})

    async def chat(self, http: Request) -> Response:
        return await self._answer(http, "chat")

    async def completion(self, http: Request) -> Response:
        return await self._answer(http, "completion")

    async def _answer(self, http: Request, path: str) -> Response:
        body = await http.json()
        self.asked.append((path, body))
        if refusal := self._refusal(http):
            return refusal
        answer = self.answers.pop(0) if self.answers else Answer()
        if answer.status != 200:
            return JSONResponse(_error(answer.error, answer.code), answer.status, answer.headers)
        return StreamingResponse(self._events(answer, body, path), media_type="text/event-stream")

    async def _events(self, answer: Answer, body: dict[str, Any], path: str) -> AsyncIterator[str]:
        choice = _CHOICES[path]
        count = 0
        if path == "chat":
            yield _event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        try:
            while True:
                for piece in answer.pieces:
                    await asyncio.sleep(answer.pause)
                    yield _event({"choices": [choice(piece, body, None)]})
                    count += 1
                if not answer.endless:
                    break
        except (asyncio.CancelledError, GeneratorExit):
            self.ended += 1
            raise
        if answer.fails:
            yield _event(_error(answer.fails, "worker_lost"))
        if answer.fails or answer.breaks:
            return
        yield _event({"choices": [choice("", body, answer.finish)]})
        yield _event({"choices": [], "usage": {"prompt_tokens": 30, "completion_tokens": count}})
        yield "data: [DONE]\n\n"

    def _refusal(self, http: Request) -> Response | None:
        if self.key and http.headers.get("authorization") != f"Bearer {self.key}":
            return JSONResponse(_error("an API key is needed", "invalid_api_key"), 401)
        return None


def _plain(entry: Any) -> Any:
    from dataclasses import asdict

    return json.loads(json.dumps(asdict(entry), default=str))


def _split(text: str) -> list[str]:
    """Words with the blank before them: near enough to tokens."""
    words = text.split(" ")
    return [words[0], *(f" {word}" for word in words[1:])]


def _token(text: str, *, control: bool) -> dict[str, Any]:
    return {"id": sum(text.encode()) % 49152, "text": text, "control": control}


def _rendered(tokens: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "prompt": "".join(token["text"] for token in tokens),
        "token_ids": [token["id"] for token in tokens],
        "tokens": tokens,
    }


def _error(message: str, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


def _event(said: dict[str, Any]) -> str:
    shared = {"id": "cmpl-1", "object": "chunk", "created": 0, "model": NAME}
    return f"data: {json.dumps({**shared, **said}, ensure_ascii=False)}\n\n"


def chance(piece: str | bytes) -> float:
    """The probability that is said of a piece: the longer, the less likely."""
    return max(0.01, 0.95 - 0.15 * (len(piece) - 1))


def _entry(piece: str | bytes, probability: float) -> dict[str, Any]:
    raw = piece.encode() if isinstance(piece, str) else piece
    return {"token": _shown(piece), "logprob": math.log(probability), "bytes": list(raw)}


def _shown(piece: str | bytes) -> str:
    if isinstance(piece, str):
        return piece
    return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def _chat(piece: str | bytes, body: dict[str, Any], finish: str | None) -> dict[str, Any]:
    text = piece if isinstance(piece, str) else ""
    said: dict[str, Any] = {"index": 0, "delta": {"content": text}, "finish_reason": finish, "logprobs": None}
    if body.get("logprobs") and piece:
        own = chance(piece)
        others = [_entry(piece, own), _entry(" <b>other</b>", 0.03), _entry("\n", 0.01)]
        said["logprobs"] = {"content": [{**_entry(piece, own), "top_logprobs": others}]}
    return said


def _completion(piece: str | bytes, body: dict[str, Any], finish: str | None) -> dict[str, Any]:
    text = piece if isinstance(piece, str) else ""
    said: dict[str, Any] = {"index": 0, "text": text, "finish_reason": finish, "logprobs": None}
    if body.get("logprobs") is not None and piece:
        own = math.log(chance(piece))
        top = {_shown(piece): own, "other": math.log(0.02)}
        said["logprobs"] = {
            "tokens": [_shown(piece)], "token_logprobs": [own], "top_logprobs": [top], "text_offset": [0],
        }  # fmt: skip
    return said


_CHOICES = {"chat": _chat, "completion": _completion}


@contextlib.contextmanager
def serving() -> Iterator[Canned]:
    """Serve on a free port of this machine; ended whatever happens."""
    canned = Canned()
    routes = [
        *page.routes(),
        Route("/v1/models", canned.models),
        Route("/v1/card", canned.card),
        Route("/v1/render", canned.render, methods=["POST"]),
        Route("/v1/chat/completions", canned.chat, methods=["POST"]),
        Route("/v1/completions", canned.completion, methods=["POST"]),
    ]
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        Starlette(routes=routes), log_level="critical", lifespan="off", ws="none", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    canned.port = listening.getsockname()[1]
    try:
        yield canned
    finally:
        server.should_exit = True
        thread.join(_START)
        listening.close()
        assert not thread.is_alive(), "the server of the tests did not end"
