"""How to choose tokens: OpenAI's fields, and those of vLLM that OpenAI has not."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from ...run.params import SamplingParams
from .base import Asked, Name, Object, TokenId

MOST = 2**63 - 1
StopText = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Grammar = Annotated[str, StringConstraints(min_length=1, max_length=64 << 10)]
Choice = Annotated[str, StringConstraints(min_length=1, max_length=4096)]


def nucleus(top_p: float | None) -> float | None:
    """Return top_p as SamplingParams takes it: OpenAI's 0 is the smallest nucleus, the likeliest token."""
    return sys.float_info.min if top_p == 0 else top_p


class StreamOptions(Asked):
    """include_usage: one more event before the last, with the usage of all."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class JsonSchema(Asked):
    """A schema, and what it is called."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: Annotated[str, StringConstraints(max_length=4096)] | None = None
    schema_: Object = Field(alias="schema")
    strict: bool | None = None


class TextFormat(Asked):
    """Text, or any JSON object."""

    type: Literal["text", "json_object"]


class SchemaFormat(Asked):
    """JSON that a schema describes."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[TextFormat | SchemaFormat, Field(discriminator="type")]


class Structured(Asked):
    """What an answer must be: exactly one of these (vLLM's structured_outputs)."""

    # `json` and `schema` are names of pydantic's own methods.
    json_: Object | None = Field(default=None, alias="json")
    regex: Grammar | None = None
    grammar: Grammar | None = None
    choice: Annotated[list[Choice], Field(min_length=1, max_length=1024)] | None = None
    json_object: Literal[True] | None = None

    @model_validator(mode="after")
    def _one(self) -> Structured:
        if len(self.model_fields_set - {name for name, value in self if value is None}) != 1:
            raise ValueError(
                "structured_outputs has exactly one of json, regex, grammar, choice, json_object"
            )
        return self

    def params(self) -> dict[str, Any]:
        """Return the fields of SamplingParams that say the same."""
        if self.json_object:
            return {"json_schema": {"type": "object"}}
        said = {
            "json_schema": self.json_,
            "regex": self.regex,
            "grammar": self.grammar,
            "choice": self.choice,
        }
        return {name: value for name, value in said.items() if value is not None}


class Sampling(Asked):
    """The fields of chat and of completions alike. null is the same as left out."""

    model: Name | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: (
        Annotated[
            dict[
                Annotated[str, StringConstraints(pattern=r"^[0-9]{1,10}$")],
                Annotated[float, Field(ge=-100, le=100)],
            ],
            Field(max_length=1024),
        ]
        | None
    ) = None
    max_tokens: Annotated[int, Field(ge=1, le=MOST)] | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = None
    seed: Annotated[int, Field(ge=0, le=MOST)] | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=16)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[str, StringConstraints(max_length=512)] | None = None
    # vLLM's.
    top_k: Annotated[int, Field(ge=-1, le=MOST)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    typical_p: Annotated[float, Field(gt=0, le=1)] | None = None
    # Logits are divided by it: by less than this they would not be finite.
    repetition_penalty: Annotated[float, Field(ge=0.01, le=10)] | None = None
    no_repeat_ngram_size: Annotated[int, Field(ge=0, le=MOST)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=MOST)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=1024)] | None = None
    allowed_token_ids: Annotated[list[TokenId], Field(min_length=1, max_length=2**18)] | None = None
    bad_words: Annotated[list[StopText], Field(max_length=1024)] | None = None
    ignore_eos: bool | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: Structured | None = None
    return_token_ids: bool | None = None
    return_replay: bool | None = None

    @model_validator(mode="after")
    def _together(self) -> Sampling:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is for stream=true")
        if self.structured_outputs is not None and isinstance(self.response_format, SchemaFormat):
            raise ValueError("structured_outputs and response_format say the same thing twice: give one")
        return self

    @property
    def usage_at_end(self) -> bool:
        """Whether a stream tells its usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def chosen(self) -> dict[str, Any]:
        """Return what was given of SamplingParams' fields."""
        said = {name: getattr(self, name) for name in _SAME}
        said = {name: value for name, value in said.items() if value is not None}
        if self.top_p is not None:
            said["top_p"] = nucleus(self.top_p)
        if self.logit_bias is not None:
            said["logit_bias"] = {int(key): value for key, value in self.logit_bias.items()}
        return said | self._structure()

    def _structure(self) -> dict[str, Any]:
        if self.structured_outputs is not None:
            return self.structured_outputs.params()
        match self.response_format:
            case SchemaFormat(json_schema=described):
                return {"json_schema": described.schema_}
            case TextFormat(type="json_object"):
                return {"json_schema": {"type": "object"}}
        return {}


_SAME = [
    name
    for name in Sampling.model_fields
    if name in SamplingParams.__dataclass_fields__ and name != "logit_bias"
]
