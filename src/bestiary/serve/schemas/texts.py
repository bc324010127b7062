"""/tokenize and /detokenize, as vLLM has them; adapters; models; the model's card; health."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from .base import Asked, Ids, Name, Said

# Each token comes back as text too, so the answer is many times as large as what was asked.
_Short = Annotated[str, StringConstraints(max_length=1 << 18)]


class TokenizeRequest(Asked):
    """A text, whose control tokens are text unless `control` says that they are tokens."""

    model: Name | None = None
    prompt: _Short
    add_special_tokens: bool = True
    control: bool = False


class Tokenized(Said):
    """A text's tokens. max_model_len: the context."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str]


class DetokenizeRequest(Asked):
    """Ids, and whether control tokens are shown as they are spelt."""

    model: Name | None = None
    tokens: Ids
    control: bool = True


class Detokenized(Said):
    """The text of ids."""

    prompt: str


class LoadAdapterRequest(Asked):
    """An adapter to load. lora_path: a folder under the one that the server was given."""

    lora_name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    lora_path: Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class UnloadAdapterRequest(Asked):
    """An adapter to unload."""

    lora_name: Name


class AdapterDone(Said):
    """What was done with an adapter."""

    message: str


class Model(Said):
    """A model that can be asked: this server's, or an adapter on it.

    sampling: what its authors sample it with, which holds where a request says nothing.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    context: int
    abilities: list[str]
    adapters: list[str]
    parent: str | None = None
    sampling: dict[str, float]


class Models(Said):
    """The models that can be asked."""

    object: Literal["list"] = "list"
    data: list[Model]


class Card(Said):
    """What the roster says of the model; entry is null for one that it does not know."""

    model_config = ConfigDict(extra="forbid")
    id: str
    entry: dict[str, Any] | None


class Health(Said):
    """How the server is. status: ok, or why it cannot answer now."""

    status: Literal["ok", "loading", "restarting", "stopping", "closed"]
    version: str
    progress: float | None = Field(
        default=None, description="Share of the weights that is read, while loading."
    )
