"""The server that is held to OpenAI's interface, and what is asked of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2
import openai
import pydantic

SECONDS = 120.0  # an answer that takes longer is none
TOKENS = 24
QUESTION = "Count from one to twenty in words."

T = TypeVar("T", bound=pydantic.BaseModel)


@dataclass(frozen=True)
class Target:
    """Where a server is.

    url ends with /v1; key is empty where none is asked for; ours: it is held to all that we claim.
    """

    url: str
    model: str
    embedder: str
    key: str
    ours: bool

    @property
    def root(self) -> str:
        return self.url.removesuffix("/").removesuffix("/v1")

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def client(self, key: str | None = None) -> openai.OpenAI:
        """OpenAI's client, which does not ask again: a failure is seen where it happens."""
        return openai.OpenAI(**self._options(key))

    def aclient(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(**self._options(None))

    def _options(self, key: str | None) -> dict[str, Any]:
        key = key or self.key or "none"
        return {"base_url": self.url, "api_key": key, "max_retries": 0, "timeout": SECONDS}

    def chat(self, question: str = QUESTION, /, **changes: Any) -> dict[str, Any]:
        """A chat request that is answered the same every time."""
        messages = [{"role": "user", "content": question}]
        fields = {
            "model": self.model,
            "messages": messages,
            "max_tokens": TOKENS,
            "temperature": 0,
            "seed": 7,
        }
        return fields | changes

    def complete(self, prompt: object = "One, two, three,", /, **changes: Any) -> dict[str, Any]:
        fields = {"model": self.model, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "seed": 7}
        return fields | changes


def read(model: type[T], body: bytes | str) -> T:
    """Read a body strictly by a class of OpenAI's client, which is made from OpenAI's specification."""
    return model.model_validate_json(body, strict=True)


def middle(answer: str) -> str:
    """Return a letter or two from the middle of an answer, to stop it there."""
    for size in (3, 2, 1):
        for at in range(len(answer) // 4, len(answer) - size):
            found = answer[at : at + size]
            if "\ufffd" not in found and found.isprintable() and not found.isspace():
                return found
    raise AssertionError(f"nothing to stop at in {answer!r}")


def events(body: str) -> Iterator[tuple[str, str]]:
    """Read server-sent events by the WHATWG's rules: their names, and their data."""
    name, data = "", list[str]()
    for line in body.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if not line:
            if data:
                yield name, "\n".join(data)
            name, data = "", []
        elif not line.startswith(":"):
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "data":
                data.append(value)
            elif field == "event":
                name = value
    assert not data, f"the stream ends within an event: {data}"


def chunks(response: httpx2.Response) -> list[dict[str, Any]]:
    """All chunks of a stream of chat or completions, which must end with [DONE]."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    found = list(events(response.text))
    assert not [name for name, _ in found if name], "chunks have no names"
    assert found, "an empty stream"
    assert found[-1][1] == "[DONE]"
    return [json.loads(data) for _, data in found[:-1]]


def error(response: httpx2.Response, *statuses: int) -> dict[str, Any]:
    """The error in a refusal, which must have OpenAI's shape and one of these statuses."""
    assert response.status_code in (statuses or (400,)), response.text[:500]
    assert response.headers["content-type"].startswith("application/json")
    body = response.json()
    assert set(body) == {"error"}, body
    found = body["error"]
    assert isinstance(found, dict), body
    assert {"message", "type", "param", "code"} <= set(found), found
    assert isinstance(found["message"], str), found
    assert found["message"], found
    assert isinstance(found["type"], str), found
    assert found["param"] is None or isinstance(found["param"], str), found
    assert found["code"] is None or isinstance(found["code"], str), found
    return found
