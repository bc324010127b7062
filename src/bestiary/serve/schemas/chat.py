"""/v1/chat/completions: https://platform.openai.com/docs/api-reference/chat."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from .base import Asked, Name, Object, Replay, Said, Text, Usage, absent, joined
from .sampling import MOST, Sampling

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
FunctionName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]


class TextPart(Asked):
    """One of several texts of a message; models that see pictures are none of this server's."""

    type: Literal["text"]
    text: Text


class CalledFunction(Asked):
    """What a message called: arguments are JSON as text."""

    name: FunctionName
    arguments: Text

    @model_validator(mode="after")
    def _object(self) -> CalledFunction:
        if self.parsed() is None:
            raise ValueError("arguments are no JSON object")
        return self

    def parsed(self) -> dict[str, Any] | None:
        """Return the arguments; None where the text is no JSON object."""
        try:
            found = json.loads(self.arguments)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def plain(self) -> dict[str, Any]:
        """Return the call as templates read it: most write the object themselves."""
        return {"name": self.name, "arguments": self.parsed()}


class ToolCall(Asked):
    """A call in a message of before."""

    id: Annotated[str, StringConstraints(max_length=256)]
    type: Literal["function"] = "function"
    function: CalledFunction
    index: Annotated[int, Field(ge=0, le=1024)] | None = None


class Message(Asked):
    """One turn. What an answer of ours holds can be sent back as it is."""

    role: Role
    content: Text | Annotated[list[TextPart], Field(min_length=1, max_length=1024)] | None = None
    name: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=128)] | None = None
    tool_call_id: Annotated[str, StringConstraints(max_length=256)] | None = None
    reasoning_content: Text | None = None
    refusal: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    audio: None = None
    function_call: None = None

    @model_validator(mode="after")
    def _says_something(self) -> Message:
        if self.content is None and not self.tool_calls:
            raise ValueError("content is missing; only an assistant's message with tool_calls has none")
        return self

    def plain(self) -> dict[str, Any]:
        """Return the message as text.chat reads it."""
        content = None if self.content is None else joined(self.content)
        said: dict[str, Any] = {"role": self.role, "content": content}
        for name in ("name", "tool_call_id", "reasoning_content"):
            if (value := getattr(self, name)) is not None:
                said[name] = value
        if self.tool_calls:
            said["tool_calls"] = [
                {"id": one.id, "type": one.type, "function": one.function.plain()} for one in self.tool_calls
            ]
        return said


class Function(Asked):
    """A function that a model may call. parameters: a JSON schema."""

    name: FunctionName
    description: Annotated[str, StringConstraints(max_length=16384)] | None = None
    parameters: Object | None = None
    strict: bool | None = None


class Tool(Asked):
    """What a model may call."""

    type: Literal["function"]
    function: Function

    def plain(self) -> dict[str, Any]:
        """Return the tool as templates read it."""
        return self.model_dump(exclude_none=True)


class NamedFunction(Asked):
    """A function by its name."""

    name: FunctionName


class NamedTool(Asked):
    """The tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


class ChatRequest(Sampling):
    """A conversation to answer.

    tool_choice "required", or a tool's name: the answer is one call and nothing else. max_tokens beyond the
    context means as many as it holds; without it, the same. logprobs: tell each token's log-probability, and
    of top_logprobs others. parallel_tool_calls=false keeps an answer's first call.
    """

    messages: Annotated[list[Message], Field(min_length=1, max_length=2048)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=MOST)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    store: Literal[False] | None = None
    metadata: Annotated[dict[Name, Name], Field(max_length=16)] | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    service_tier: Literal["auto", "default"] | None = None

    @model_validator(mode="after")
    def _agrees(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs is for logprobs=true")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("max_tokens and max_completion_tokens say the same thing twice: give one")
        if self.forced is not None:
            if not self.forced:
                raise ValueError("tool_choice asks for a call of a tool that tools does not describe")
            if super()._structure():
                raise ValueError(
                    "tool_choice asks for a call, and response_format for another answer: give one"
                )
        return self

    @property
    def forced(self) -> list[Function] | None:
        """The functions of which the answer must call one; None where it need not."""
        functions = [tool.function for tool in self.tools or ()]
        match self.tool_choice:
            case NamedTool(function=asked):
                return [one for one in functions if one.name == asked.name]
            case "required":
                return functions
        return None

    def _structure(self) -> dict[str, Any]:
        if self.forced is None:
            return super()._structure()
        return {"json_schema": {"anyOf": [_call_of(function) for function in self.forced]}}

    @property
    def likeliest(self) -> int | None:
        """How many logprobs a token's entry has beside its own; None for no entries."""
        return (self.top_logprobs or 0) if self.logprobs else None

    def conversation(self) -> list[dict[str, Any]]:
        """Return the messages as text.chat reads them."""
        return [message.plain() for message in self.messages]

    def described(self) -> list[dict[str, Any]] | None:
        """Return the tools that the prompt tells of; None for none."""
        return None if not self.tools or self.tool_choice == "none" else [tool.plain() for tool in self.tools]


def _call_of(function: Function) -> dict[str, Any]:
    """Return the schema of a call, as text.calls reads it."""
    arguments = {"type": "object", **(function.parameters or {})}
    properties = {"name": {"const": function.name}, "arguments": arguments}
    return {
        "type": "object",
        "properties": properties,
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


class RenderRequest(Asked):
    """What is rendered: a chat request, or a completion request, by whether it has messages."""

    model: Name | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=2048)] | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    prompt: Text | None = None

    @model_validator(mode="after")
    def _one(self) -> RenderRequest:
        if (self.messages is None) == (self.prompt is None):
            raise ValueError("messages or prompt: give one of them")
        if self.tools and self.messages is None:
            raise ValueError("tools go with messages")
        return self


# Answers.


class TopLogprob(Said):
    """A token that was likely. bytes: its own, which may be half a character."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    """The token that was chosen, and those that were likeliest there."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(Said):
    """An entry for each token."""

    content: list[TokenLogprob] | None
    refusal: None = None


class SaidFunction(Said):
    """What is called; in a stream, the next part of it."""

    name: str | None = Field(default=None, exclude_if=absent)
    arguments: str


class SaidCall(Said):
    """A call of a function."""

    index: int | None = Field(default=None, exclude_if=absent)
    id: str | None = Field(default=None, exclude_if=absent)
    type: Literal["function"] | None = Field(default=None, exclude_if=absent)
    function: SaidFunction


class AnswerMessage(Said):
    """The model's turn."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: list[SaidCall] | None = Field(default=None, exclude_if=absent)


class Choice(Said):
    """One of n answers."""

    index: int
    message: AnswerMessage
    finish_reason: str
    logprobs: ChatLogprobs | None = None
    token_ids: list[int] | None = Field(default=None, exclude_if=absent)


class ChatCompletion(Said):
    """The answer to a conversation."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    system_fingerprint: str | None = None
    prompt_token_ids: list[int] | None = Field(default=None, exclude_if=absent)
    replay: Replay | None = Field(default=None, exclude_if=absent)


class Delta(Said):
    """What an event adds to a turn."""

    role: Literal["assistant"] | None = Field(default=None, exclude_if=absent)
    content: str | None = Field(default=None, exclude_if=absent)
    tool_calls: list[SaidCall] | None = Field(default=None, exclude_if=absent)


class ChunkChoice(Said):
    """What an event adds to one of n answers."""

    index: int
    delta: Delta
    finish_reason: str | None = None
    logprobs: ChatLogprobs | None = None
    token_ids: list[int] | None = Field(default=None, exclude_if=absent)


class ChatChunk(Said):
    """An event of a stream. usage: in the last one, where it was asked for."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    system_fingerprint: str | None = None
    usage: Usage | None = Field(default=None, exclude_if=absent)
    prompt_token_ids: list[int] | None = Field(default=None, exclude_if=absent)
    replay: Replay | None = Field(default=None, exclude_if=absent)


class RenderedToken(Said):
    """A token of a prompt. control: it stands for no text of its own."""

    id: int
    text: str
    control: bool


class Rendered(Said):
    """What the model sees. template: the format's name; null for a prompt that is continued."""

    prompt: str
    token_ids: list[int]
    tokens: list[RenderedToken]
    template: str | None
