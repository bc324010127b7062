"""An answer of a server, computed again: from its prompt's ids, its params and its seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from pydantic import ValidationError

from ..errors import RequestError
from ..run.asking import Request
from ..run.generate import generate
from ..run.llm import LLM
from ..run.params import SamplingParams
from . import weights
from .errors import of
from .schemas.base import Replay


@dataclass(frozen=True)
class Outcome:
    """What was told and what was computed, a pair of token ids for each answer; and what may explain it."""

    answers: list[tuple[list[int], list[int]]]
    warnings: list[str]

    @property
    def same(self) -> bool:
        """Whether every token is the same."""
        return all(told == made for told, made in self.answers)

    def plain(self) -> dict[str, Any]:
        """Return it as JSON."""
        pairs = [{"told": told, "computed": made, "same": told == made} for told, made in self.answers]
        return {"same": self.same, "answers": pairs, "warnings": self.warnings}


def read(value: object) -> Replay:
    """Return what an answer tells of itself. value: the answer, or its "replay". Raises RequestError."""
    inner = value.get("replay", value) if isinstance(value, Mapping) else None
    if not isinstance(inner, Mapping):
        raise RequestError('there is no "replay" here: ask the server with "return_replay": true')
    try:
        return Replay.model_validate(inner)
    except ValidationError as error:
        raise RequestError(f"this is no replay of a server: {of(error).message}") from error


def replay(llm: LLM, said: Replay) -> Outcome:
    """Compute an answer again. Raises RequestError for what this model cannot be asked."""
    params = dict(said.params)
    if isinstance(params.get("logit_bias"), Mapping):
        params["logit_bias"] = {int(key): value for key, value in params["logit_bias"].items()}
    try:
        chosen = SamplingParams(**params)
    except TypeError as error:
        raise RequestError("its params are not those of this version") from error
    request = Request(None, said.prompt_token_ids, said.continues, frozenset(said.ends))
    made: list[list[int]] = [[] for _ in range(chosen.n)]
    for chunk in generate(llm.session(), request.ids, chosen, llm.asker.vocabulary(request)):
        made[chunk.index].extend(chunk.ids)
    told = [*said.token_ids, *([] for _ in range(chosen.n))][: chosen.n]
    return Outcome(list(zip(told, made, strict=True)), _warnings(llm, said))


def _warnings(llm: LLM, said: Replay) -> list[str]:
    found = []
    ids = ",".join(map(str, said.prompt_token_ids)).encode()
    if sha256(ids).hexdigest() != said.prompt_sha256:
        found.append("the prompt's ids are not those that were hashed: the file was changed")
    if said.weights_sha256 is not None and weights.sha256(llm.path) != said.weights_sha256:
        found.append("these weights are not those that answered")
    if said.adapter is not None and not llm.tuning.adapters:
        found.append(f"the answer was made with the adapter {said.adapter}; give it with --adapter")
    return found
