"""What all requests and answers share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MOST_IDS = 1 << 18
MOST_CHARACTERS = 4 << 20

Name = Annotated[str, StringConstraints(min_length=1, max_length=512)]
Text = Annotated[str, StringConstraints(max_length=MOST_CHARACTERS)]
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
Ids = Annotated[list[TokenId], Field(max_length=MOST_IDS)]
# JSON of any shape that the reader of bodies lets through: depth 64, no NaN, integers of 64 bits.
Json = Any
Object = dict[str, Json]


def joined(content: str | list[Any]) -> str:
    """Return a message's text: its parts, a line each, as vLLM and llama.cpp join them.

    Most templates put a message's content between other texts, and fail on a list of parts.
    """
    return content if isinstance(content, str) else "\n".join(part.text for part in content)


class Asked(BaseModel):
    """A request: fields as they are typed here and no others."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Said(BaseModel):
    """An answer."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="null")


def absent(value: object) -> bool:
    """Whether a field of an answer is left out rather than null."""
    return value is None


class ErrorBody(Said):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(Said):
    """An error."""

    error: ErrorBody


class CachedDetails(Said):
    """Of the prompt's tokens, those that were computed for another request before."""

    cached_tokens: int


class Usage(Said):
    """How many tokens a request had."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedDetails


class Replay(Said):
    """All that an answer depends on: `bestiary replay` asks again, and compares.

    weights_sha256: of the SHA-256 of each weight file, in the order of their names; null until they are read.
    params: SamplingParams with its seed. prompt_token_ids, token_ids: of the answer whose index is 0.
    """

    prompt_sha256: str
    template: str | None
    weights_sha256: str | None
    seed: int
    params: dict[str, Any]
    bestiary: str
    model: str
    adapter: str | None
    prompt_token_ids: list[int]
    token_ids: list[list[int]]
    continues: bool
    ends: list[int]
