"""What the front and the worker say to each other of one request, as plain data and back."""

from __future__ import annotations

import base64
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BestiaryError, RequestError
from ..run.asking import Asker, Facts, Request
from ..run.params import SamplingParams
from ..run.room import Room
from ..run.vocabulary import Rules
from .wire import Message

if TYPE_CHECKING:
    from ..engine import Job, Reading, Update

# Fields that are code, not data: only callers in the same process have them.
_CODE = frozenset({"constraint"})
# log(0): JSON has no infinity, and OpenAI's specification names this number in its place.
LEAST_LOGPROB = -9999.0


@dataclass(frozen=True, slots=True)
class Piece:
    """What a step added to one answer.

    ids and logprobs go together, a token each; an entry of logprobs is [[id, logprob, rank], ...], the
    token's own first. cached: how many tokens of the prompt were computed before.
    """

    index: int
    text: str
    ids: tuple[int, ...]
    finish_reason: str | None
    logprobs: tuple[Any, ...]
    cached: int


def job_message(request: Request, params: SamplingParams, *, adapter: str | None, salt: str) -> Message:
    """Return what the worker must know to answer a request."""
    said = {field.name: getattr(params, field.name) for field in fields(params) if field.name not in _CODE}
    return {
        "kind": "job",
        "prompt": request.ids,
        "continues": request.continues,
        "ends": sorted(request.ends),
        "shows": sorted(request.shows),
        "params": said,
        "adapter": adapter,
        "salt": salt,
    }


def job_of(message: Mapping[str, Any], asker: Asker) -> Job:
    """Return the engine's job. Raises RequestError for values out of their bounds."""
    from ..engine import Job

    ids, ends = list(message["prompt"]), frozenset(message["ends"])
    request = Request(None, ids, bool(message["continues"]), ends, shows=frozenset(message["shows"]))
    return Job(
        ids,
        params_of(message),
        asker.vocabulary(request),
        adapter=message["adapter"],
        salt=message["salt"],
    )


def params_of(message: Mapping[str, Any]) -> SamplingParams:
    """Return how to sample. JSON's keys are text, and those of logit_bias are ids."""
    said = dict(message["params"])
    if said.get("logit_bias") is not None:
        said["logit_bias"] = {int(key): value for key, value in said["logit_bias"].items()}
    return SamplingParams(**said)


def reading_of(message: Mapping[str, Any]) -> Reading:
    """Return the engine's job of reading texts to vectors."""
    from ..engine import Reading

    return Reading(message["texts"], message.get("how"))


def message_of(update: Update, number: int, first: int) -> Message:
    """Return an update as the front reads it. first: the index of the job's first answer."""
    if update.error is not None:
        return {"n": number, **told(update.error)}
    if update.vectors is not None:
        vectors = [base64.b64encode(_floats(row)).decode() for row in update.vectors]
        return {"n": number, "vectors": vectors}
    said: Message = {"n": number, "c": update.cached}
    if (chunk := update.chunk) is not None:
        said |= {"x": first + chunk.index, "t": chunk.text, "i": list(chunk.ids)}
        if chunk.finish_reason is not None:
            said["f"] = chunk.finish_reason
        if chunk.logprobs is not None and chunk.ids:
            said["l"] = [_entry(chunk.ids[0], chunk.logprobs)]
    return said


def piece_of(said: Mapping[str, Any]) -> Piece:
    """Return what an update with a chunk says."""
    return Piece(
        index=said.get("x", 0),
        text=said.get("t", ""),
        ids=tuple(said.get("i", ())),
        finish_reason=said.get("f"),
        logprobs=tuple(said.get("l", ())),
        cached=said.get("c", 0),
    )


def said_of(piece: Piece) -> Message:
    """Return an update that says a piece: piece_of's inverse."""
    said: Message = {"x": piece.index, "t": piece.text, "i": list(piece.ids), "c": piece.cached}
    if piece.finish_reason is not None:
        said["f"] = piece.finish_reason
    if piece.logprobs:
        said["l"] = list(piece.logprobs)
    return said


def told(error: BaseException) -> dict[str, str]:
    """Return an error as the front reads it: whose fault it is, and its words where they are for users."""
    if isinstance(error, BestiaryError):
        kind = "request" if isinstance(error, RequestError) else type(error).__name__
        return {"error": kind, "message": str(error)}
    # Not its words, which may be the prompt's.
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
    sys.stderr.write(f"worker: {type(error).__name__} at {where}\n")
    return {"error": "defect", "message": "this request could not be computed"}


def _entry(token: int, found: Mapping[int, Any]) -> list[list[float]]:
    """Return a token's logprob, and those of the likeliest ones behind it."""
    ranked = sorted(found.items(), key=lambda item: item[1].rank)
    listed = [(token, found[token]), *ranked]
    return [[id, max(one.logprob, LEAST_LOGPROB), one.rank] for id, one in listed]


def _floats(row: Any) -> bytes:
    """Return a vector's bytes, float32, least significant byte first."""
    import numpy as np

    return np.asarray(row, dtype="<f4").tobytes()


def facts_message(facts: Facts) -> Message:
    """Return a model's facts as plain data."""
    return {**asdict(facts), "ends": sorted(facts.ends)}


def facts_of(message: Mapping[str, Any]) -> Facts:
    """Return the facts that facts_message wrote down."""
    rules, room = dict(message["rules"]), dict(message["room"])
    return Facts(
        name=message["name"],
        size=message["size"],
        ends=frozenset(message["ends"]),
        rules=Rules(
            rules["first"],
            tuple(rules["last"]),
            tuple(map(tuple, rules["banned"])),
            tuple(rules["banned_first"]),
        ),
        room=Room(room["context"], _tuple(room["start"])),
        abilities=tuple(message["abilities"]),
    )


def _tuple(value: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if value is None else tuple(value)
