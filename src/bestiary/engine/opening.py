"""From an opened model to an engine that serves it."""

from __future__ import annotations

from ..adapters.mixed import Mix
from ..errors import RequestError
from ..models import Encoder
from ..run.llm import LLM
from .engine import Engine
from .pages import PAGE
from .speculate import Draft, Guesser, PromptLookup

MOST_TOKENS = 1 << 16
"""Tokens of a cache where nobody says how many: 65,536."""
MOST_GUESSES = 16


def open_engine(
    llm: LLM,
    *,
    tokens: int | None = None,
    batch: int = 16,
    chunk: int = 512,
    deterministic: bool = False,
    share: bool = True,
    cache_dtype: str | None = None,
    guesses: int = 0,
    draft: LLM | None = None,
    adapters: bool = False,
) -> Engine:
    """Return the engine of a model. See Engine for what it is told.

    tokens: None is as many as `batch` contexts need, at most 65,536. guesses: how many tokens are guessed to
    follow an answer at a time, 0 to 16: from what it repeats, or by a draft model with the same tokenizer.
    adapters: whether some may be attached while it runs.

    Raises RequestError for values out of their bounds, and for a draft model of other tokens.
    """
    room = llm.asker.facts.room
    tokens = min(MOST_TOKENS, batch * room.context) if tokens is None else tokens
    if not 0 <= guesses <= MOST_GUESSES:
        raise RequestError(f"guesses={guesses} should be from 0 to {MOST_GUESSES}")
    return Engine(
        llm.model,
        room,
        tokens=tokens,
        batch=batch,
        chunk=chunk,
        deterministic=deterministic,
        share=share,
        cache_dtype=cache_dtype,
        pooling=llm.reader.pooling,
        mixture=Mix(llm.loaded) if adapters else None,
        guesser=None if isinstance(llm.model, Encoder) else _guesser(llm, tokens, guesses, draft),
    )


def _guesser(llm: LLM, tokens: int, guesses: int, draft: LLM | None) -> Guesser | None:
    if draft is None:
        return PromptLookup(guesses) if guesses else None
    ours, its = (one.tokenizer for one in (llm, draft))
    if (ours.vocab_size, ours.control) != (its.vocab_size, its.control):
        raise RequestError(
            f"{draft.name} cannot draft for {llm.name}: its tokenizer has {its.vocab_size} tokens, and not "
            f"the same {ours.vocab_size}"
        )
    return Draft(draft.model, tokens // PAGE, context=draft.context, most=guesses or 4)
