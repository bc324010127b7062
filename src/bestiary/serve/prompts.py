"""From a request's fields to what the model reads; what is much too long is refused before all is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import RequestError
from ..run.asking import Asker, Request
from ..run.params import SamplingParams
from ..run.pooling import Pooling
from .errors import APIError

# A text is looked at in growing parts until one fills the context: 2, 8 and 32 characters for each token.
_PARTS = (2, 8, 32)
# Tokens at the end of a part that the whole text may have otherwise.
_EDGE = 16
_BLANK = "[MASK]"


def conversation(
    asker: Asker, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
) -> Request:
    """Return the request for the next answer. Raises APIError for a base model; RequestError."""
    if asker.template is None:
        raise APIError(
            400,
            f"{asker.facts.name} has no chat template: it is a base model. Ask /v1/completions, or start the "
            "server with --chat-template NAME",
            code="no_chat_template",
        )
    for message in messages:
        content = message["content"]
        texts = [content] if isinstance(content, str) else [part["text"] for part in content or ()]
        for text in texts:
            refuse_long(asker, text)
    return asker.turn([_told(asker, message) for message in messages], tools)


def _told(asker: Asker, message: Mapping[str, Any]) -> Mapping[str, Any]:
    """OpenAI's later models call "developer" what all others call "system"."""
    source = "" if asker.template is None else asker.template.source
    renamed = message["role"] == "developer" and "developer" not in source
    return {**message, "role": "system"} if renamed else message


def continuation(asker: Asker, prompt: str | Sequence[int], suffix: str | None = None) -> Request:
    """Return the request to continue a prompt, or to fill what is between it and a suffix.

    Raises APIError for a suffix that the model cannot heed; RequestError.
    """
    if isinstance(prompt, str):
        refuse_long(asker, prompt)
    if suffix:
        if not asker.reads_blanks or not isinstance(prompt, str):
            raise APIError(
                400,
                f"{asker.facts.name} does not fill blanks, so a suffix would have no effect; leave it out",
                param="suffix",
                code="unsupported_by_model",
            )
        prompt = f"{prompt}{_BLANK}{suffix}"
    return asker.continuation(prompt)


def embeddable(asker: Asker, pooling: Pooling, texts: Sequence[str | Sequence[int]]) -> list[list[int]]:
    """Return the ids of texts as the model reads them; ids are taken as they are.

    Raises RequestError for a text that is empty or longer than the model reads: it is never cut.
    """
    context = asker.facts.room.context
    most = min(context, pooling.max_tokens or context)
    found: list[list[int]] = []
    for number, text in enumerate(texts):
        if isinstance(text, str):
            refuse_long(asker, text)
            text = pooling.prompt + text
            ids = asker.tokenizer.encode(text.lower() if pooling.lower else text)
            ids = asker.tokenizer.around.wrap(ids).ids
        else:
            ids = list(text)
            if wrong := [id for id in ids if id >= asker.facts.size]:
                raise RequestError(
                    f"token {wrong[0]} of text {number} is not one of the model's 0 to {asker.facts.size - 1}"
                )
        if not 1 <= len(ids) <= most:
            raise RequestError(f"text {number} has {len(ids)} tokens, and the model reads 1 to {most}")
        found.append(ids)
    return found


def refuse_long(asker: Asker, text: str) -> None:
    """Raise APIError for a text that is longer than the context, without reading all of it."""
    context = asker.facts.room.context
    if len(text) <= _PARTS[-1] * context:
        return
    for part in _PARTS:
        count = len(asker.tokenizer.encode(text[: part * context])) - _EDGE
        if count >= context:
            raise APIError(
                400,
                f"the prompt has more than {count} tokens, and the context of {context} must hold it and an "
                "answer; shorten the prompt, or open the model with a larger context",
                code="context_length_exceeded",
            )


def stopped(params: SamplingParams, request: Request) -> SamplingParams:
    """Return params that also stop where the model's format ends a turn by words."""
    if not request.stops:
        return params
    return replace(params, stop=(*dict.fromkeys((*(params.stop or ()), *request.stops)),))


def written_by(asker: Asker, request: Request) -> str | None:
    """Return the name of the format that a prompt is written in; None for one that is continued."""
    return None if request.continues or asker.template is None else asker.template.name
