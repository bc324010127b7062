"""/v1/embeddings: https://platform.openai.com/docs/api-reference/embeddings."""

from __future__ import annotations

from typing import Annotated, Literal, cast

from pydantic import Field, StringConstraints

from .base import Asked, Name, Said, TokenId

MOST_TEXTS = 2048
_Text = Annotated[str, StringConstraints(min_length=1, max_length=4 << 20)]
_Ids = Annotated[list[TokenId], Field(min_length=1, max_length=1 << 18)]


class EmbeddingRequest(Asked):
    """Texts to embed. dimensions: only as many as the model has."""

    model: Name | None = None
    input: (
        _Text
        | _Ids
        | Annotated[list[_Text], Field(min_length=1, max_length=MOST_TEXTS)]
        | Annotated[list[_Ids], Field(min_length=1, max_length=MOST_TEXTS)]
    )
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    user: Annotated[str, StringConstraints(max_length=512)] | None = None

    @property
    def texts(self) -> list[str | list[int]]:
        """Each text, or its ids."""
        if isinstance(self.input, str):
            return [self.input]
        if isinstance(self.input[0], int):
            return [self.input]
        return list(cast(list[str | list[int]], self.input))


class Embedding(Said):
    """A vector: numbers, or base64 of float32 with the least significant byte first."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Said):
    """How many tokens were read."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(Said):
    """The vectors, in the order of the texts."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
