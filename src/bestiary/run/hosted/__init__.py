"""Hosted models: an operator's machine computes, behind the methods of LLM.

    LLM("bedrock:amazon.titan-text-express-v1")     Amazon Titan, through AWS Bedrock
    LLM("openai:MODEL@https://host/v1")             whatever speaks OpenAI's protocol at that address
    LLM("titan")                                    a system of the roster that was never published

These names, typed by a user, and hub.pull are all that makes the package open a connection. What makes a name
hosted is looked at here, without anything heavy; the rest is imported when such a name was typed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal, Self, cast

from ... import roster
from ...errors import RequestError

__all__ = ["Door", "Name", "named"]

_ADDRESS = re.compile(r"(?P<model>\S+?)@(?P<address>[a-z]+://\S+)", re.ASCII)


@dataclass(frozen=True)
class Name:
    """Who computes which of its models, and at which address where the operator is not one company."""

    operator: Literal["bedrock", "openai"]
    model: str
    address: str | None = None

    def __str__(self) -> str:
        return f"{self.operator}:{self.model}" + (f"@{self.address}" if self.address else "")


def named(model: str | PathLike[str]) -> Name | None:
    """Return the hosted model that a name means; None for a name of something on this machine.

    A path object is never a hosted model, and a file that is called so is reached as `./bedrock:...`.
    Raises RequestError for a name that begins as a hosted one and goes on as none.
    """
    if not isinstance(model, str):
        return None
    operator, colon, rest = model.partition(":")
    if colon and operator == "bedrock":
        if not re.fullmatch(r"[\w.:/-]+", rest, re.ASCII):
            raise RequestError(
                f"{model[:100]!r} should be bedrock:MODEL\nTry: bedrock:amazon.titan-embed-text-v2:0"
            )
        return Name("bedrock", rest)
    if colon and operator == "openai":
        found = _ADDRESS.fullmatch(rest)
        if found is None:
            wanted = "should be openai:MODEL@https://host/v1: an address is never guessed"
            raise RequestError(f"{model[:200]!r} {wanted}\nTry: openai:MODEL@https://api.openai.com/v1")
        return Name("openai", found["model"], found["address"].rstrip("/"))
    return _of_roster(model)


def _of_roster(model: str) -> Name | None:
    entry = None if "/" in model else roster.find(model)
    if entry is None or entry.kind != "hosted" or not entry.checkpoints:
        return None
    # Bedrock is the one operator whose models the roster lists.
    ids = [one.id for one in entry.checkpoints]
    return Name("bedrock", model if model in ids else ids[0])


class Door:
    """What LLM(name) passes first: a hosted model's name makes a Hosted, which is an LLM too.

    So `isinstance(llm, LLM)` holds of either, and `isinstance(llm, Hosted)` tells them apart.
    """

    def __new__(cls, model: str | PathLike[str] = "", *args: Any, **kwargs: Any) -> Self:
        from ..llm import LLM

        if cls is not LLM or named(model) is None:
            return super().__new__(cls)
        from .model import Hosted

        return cast(Self, super().__new__(Hosted))
