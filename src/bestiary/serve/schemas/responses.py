"""/v1/responses, its text part: https://platform.openai.com/docs/api-reference/responses.

Nothing is stored, so an answer cannot be asked for again or gone on from: store=true and previous_response_id
are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from .base import Asked, Name, Object, Said, Text, joined
from .sampling import MOST, nucleus


class InputPart(Asked):
    """A text of a message; output_text is one of an answer of before."""

    type: Literal["input_text", "output_text"]
    text: Text
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    logprobs: Annotated[list[Any], Field(max_length=0)] | None = None


class InputMessage(Asked):
    """One turn; an item of an answer of before can be sent as it is."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[InputPart], Field(min_length=1, max_length=1024)]
    id: Annotated[str, StringConstraints(max_length=256)] | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None

    def plain(self) -> dict[str, Any]:
        """Return the message as text.chat reads it."""
        return {"role": self.role, "content": joined(self.content)}


class PlainText(Asked):
    """Text, or any JSON object."""

    type: Literal["text", "json_object"]


class SchemaText(Asked):
    """JSON that a schema describes."""

    type: Literal["json_schema"]
    name: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: Annotated[str, StringConstraints(max_length=4096)] | None = None
    schema_: Object = Field(alias="schema")
    strict: bool | None = None


class TextOptions(Asked):
    """What the text must be."""

    format: Annotated[PlainText | SchemaText, Field(discriminator="type")] | None = None
    verbosity: Literal["medium"] | None = None


class ResponseRequest(Asked):
    """A text or a conversation to answer. instructions: a system message in front of it."""

    model: Name | None = None
    input: Text | Annotated[list[InputMessage], Field(min_length=1, max_length=2048)]
    instructions: Text | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=MOST)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    stream: bool | None = None
    text: TextOptions | None = None
    store: Literal[False] | None = None
    truncation: Literal["disabled"] | None = None
    metadata: Annotated[dict[Name, Name], Field(max_length=16)] | None = None
    user: Annotated[str, StringConstraints(max_length=512)] | None = None
    parallel_tool_calls: bool | None = None
    tool_choice: Literal["none", "auto"] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    seed: Annotated[int, Field(ge=0, le=MOST)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> ResponseRequest:
        if self.input == "":
            raise ValueError("input is empty: there is nothing to answer")
        return self

    def conversation(self) -> list[dict[str, Any]]:
        """Return the messages as text.chat reads them."""
        before = [] if self.instructions is None else [{"role": "system", "content": self.instructions}]
        if isinstance(self.input, str):
            return [*before, {"role": "user", "content": self.input}]
        return [*before, *(message.plain() for message in self.input)]

    def chosen(self) -> dict[str, Any]:
        """Return what was given of SamplingParams' fields."""
        said = {"temperature": self.temperature, "top_p": nucleus(self.top_p), "seed": self.seed}
        chosen: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
        match None if self.text is None else self.text.format:
            case SchemaText(schema_=schema):
                chosen["json_schema"] = schema
            case PlainText(type="json_object"):
                chosen["json_schema"] = {"type": "object"}
        return chosen


# Answers.


class OutputText(Said):
    """The text of an answer."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[Any] = Field(default_factory=list)
    logprobs: list[Any] = Field(default_factory=list)


class OutputMessage(Said):
    """An answer."""

    type: Literal["message"] = "message"
    id: str
    role: Literal["assistant"] = "assistant"
    status: Literal["in_progress", "completed", "incomplete"]
    content: list[OutputText]


class Incomplete(Said):
    """Why an answer is not whole."""

    reason: Literal["max_output_tokens"]


class InputDetails(Said):
    """Of the input's tokens, those that were computed for another request before.

    cache_write_tokens: those that OpenAI charges for keeping; nothing is charged here.
    """

    cached_tokens: int
    cache_write_tokens: Literal[0] = 0


class OutputDetails(Said):
    """Of the output's tokens, those of hidden reasoning: none."""

    reasoning_tokens: int = 0


class ResponseUsage(Said):
    """How many tokens a request had."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class Response(Said):
    """The answer, or how far it is."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    error: dict[str, str] | None = None
    incomplete_details: Incomplete | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    model: str
    output: list[OutputMessage]
    parallel_tool_calls: bool = True
    previous_response_id: None = None
    reasoning: dict[str, None] = Field(default_factory=lambda: {"effort": None, "summary": None})
    store: Literal[False] = False
    temperature: float
    text: dict[str, Any]
    tool_choice: str = "auto"
    tools: list[Any] = Field(default_factory=list)
    top_p: float
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsage | None = None
    user: str | None = None
