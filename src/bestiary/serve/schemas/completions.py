"""/v1/completions: https://platform.openai.com/docs/api-reference/completions."""

from __future__ import annotations

from typing import Annotated, Literal, cast

from pydantic import Field, model_validator

from .base import Ids, Replay, Said, Text, TokenId, Usage, absent
from .sampling import Sampling

MOST_PROMPTS = 128
Prompts = (
    Text
    | Annotated[list[TokenId], Field(min_length=1, max_length=1 << 18)]
    | Annotated[list[Text], Field(min_length=1, max_length=MOST_PROMPTS)]
    | Annotated[list[Ids], Field(min_length=1, max_length=MOST_PROMPTS)]
)


class CompletionRequest(Sampling):
    """Prompts to continue: a text, its ids, or several of either.

    max_tokens: 16 where nothing is said; beyond the context it means as many as it holds. echo: the prompt
    stands before each answer. suffix: what stands behind the answer, for a model that fills blanks.
    """

    prompt: Prompts
    echo: bool | None = None
    suffix: Text | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    best_of: Annotated[int, Field(ge=1, le=16)] | None = None

    @model_validator(mode="after")
    def _agrees(self) -> CompletionRequest:
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise ValueError("best_of should be n, or left out: answers are not ranked here")
        if self.echo and self.logprobs is not None:
            raise ValueError(
                "echo with logprobs is not computed: a prompt's own are what `bestiary score` tells"
            )
        if self.answers > 128:
            raise ValueError(f"{self.answers} answers in one request; 128 are the most")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(cast(list[str | list[int]], self.prompt))

    @property
    def answers(self) -> int:
        """How many answers there will be."""
        return len(self.prompts) * (self.n or 1)


class CompletionLogprobs(Said):
    """A list each, with an entry for each token. text_offset: characters of the text before the token's."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class CompletionChoice(Said):
    """One answer to one prompt; in a stream, what an event adds to it. index: prompt by prompt, n of each."""

    index: int
    text: str
    finish_reason: str | None = None
    logprobs: CompletionLogprobs | None = None
    token_ids: list[int] | None = Field(default=None, exclude_if=absent)
    prompt_token_ids: list[int] | None = Field(default=None, exclude_if=absent)


class Completion(Said):
    """The answers; in a stream, an event of them."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    system_fingerprint: str | None = None
    usage: Usage | None = Field(default=None, exclude_if=absent)
    replay: Replay | None = Field(default=None, exclude_if=absent)
