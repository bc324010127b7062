"""One sequence, token by token: prefill, then a step a token, as an iterator of chunks.

State is passed, never planted: keys and values live in a Session that the caller holds, and nothing here
remembers anything between two calls.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..context import Cache, Prompt, Stream
from ..errors import CheckpointError, RequestError
from ..models import Decoder, Pick
from ..text.stream import StreamDecoder
from .params import SamplingParams, show
from .sample import History, Logprob, draw, keep, logprobs, narrow, penalise, uniform
from .stops import StopStrings

# Tokens of a prompt computed at once: enough for full speed, and few enough that the activations of a long
# prompt need no more memory than those of a short one.
CHUNK = 512
# A cache has room for a multiple of this many tokens, and grows by half when it is full: little is wasted,
# and a token is copied about twice in all.
ROOM = 256

# stop: an end token or a stop string. length: max_tokens, or a full context. abort: interrupted.
FinishReason = Literal["stop", "length", "abort"]

_LAST: Pick = (slice(None), -1)


@dataclass(frozen=True)
class Vocabulary:
    """What generation has to know of a tokenizer.

    size: how many ids have a text; logits beyond are padding of the weights and never chosen. ends: the
    model's own end tokens. decoder: makes the text decoder of one answer.
    """

    size: int
    ends: frozenset[int]
    decoder: Callable[[], StreamDecoder]


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one token adds to an answer.

    text: what can be shown by now, which need not be this token's own. ids: the token; empty only in the
    chunk that reports an interrupt. finish_reason: set in an answer's last chunk. index: which of the n
    answers.
    """

    text: str
    ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    index: int = 0
    logprobs: dict[int, Logprob] | None = None


class Session:
    """The tokens a model has seen, in order, with their keys and values.

    A prompt that begins with the same tokens costs only what is new: the next turn of a chat, the next of n
    answers. Memory grows with the tokens, up to `context` of them. Not for two threads at once.
    """

    def __init__(self, model: Decoder, context: int) -> None:
        self.model, self.context = model, context
        self.ids: list[int] = []
        self._cache: Cache | None = None
        self._prompt: Prompt | None = None

    def prefill(self, prompt: Sequence[int]) -> Tensor:
        """Make `prompt`, not empty, all that was seen; return float32 logits (V,) of the token after it."""
        before, self._prompt = (
            self._prompt,
            self.model.prompt(torch.tensor([prompt], device=next(self.model.parameters()).device)),
        )
        if before is not None and not self._prompt.continues(before):
            self.rewind(0)  # what was computed saw another beginning
        # The last token is always computed: its logits were not kept.
        self.rewind(min(_common(self.ids, prompt), len(prompt) - 1))
        return self.feed(prompt[len(self.ids) :])

    @torch.inference_mode()
    def feed(self, tokens: Sequence[int]) -> Tensor:
        """Append at least one token; return float32 logits (V,) of the one after them.

        Raises RequestError when they do not fit the context.
        """
        total = len(self.ids) + len(tokens)
        cache = self._room(total)
        for part in self._parts(tokens):
            ctx = Stream.at(cache, len(self.ids), len(part), self._prompt)
            logits = self.model(torch.tensor([part], device=ctx.positions.device), ctx, _LAST)
            self.ids.extend(part)  # only now: an interrupted step leaves the session as it was
        return logits[0].float()  # type: ignore[no-any-return]

    def _parts(self, tokens: Sequence[int]) -> Iterator[Sequence[int]]:
        """Cut tokens into what is computed at once; a prefix that all of its tokens see stays whole."""
        prefix = None if self._prompt is None or self._prompt.prefix is None else self._prompt.prefix
        first = max(CHUNK, 0 if prefix is None else int(prefix) - len(self.ids))
        yield tokens[:first]
        for begin in range(first, len(tokens), CHUNK):
            yield tokens[begin : begin + CHUNK]

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        del self.ids[length:]

    def _room(self, length: int) -> Cache:
        if length > self.context:
            raise RequestError(f"{length} tokens do not fit the context of {self.context}")
        had = 0 if self._cache is None else self._cache.capacity
        room = min(self.context, -(-max(length, had + had // 2) // ROOM) * ROOM)
        if self._cache is None:
            like = next(self.model.parameters())  # the norms' type is the one that is computed in
            self._cache = Cache.empty(self.model, 1, room, dtype=like.dtype, device=like.device)
        elif length > had:
            self._cache.grow(room)
        return self._cache


def generate(
    session: Session, prompt: Sequence[int], params: SamplingParams, vocabulary: Vocabulary
) -> Iterator[Chunk]:
    """Return the chunks of params.n answers to a prompt of token ids, one answer after the other.

    The prompt is computed once. An interrupt (Ctrl-C) while a token is computed gives one last chunk, with
    the text that was held back and finish_reason "abort"; asked for another, the iterator raises
    KeyboardInterrupt. The session stays usable.

    Raises RequestError, before anything is computed, for a prompt that is empty or leaves no room in the
    context (it is never cut), and for ids outside the vocabulary; CheckpointError, on the way, for logits
    that are not finite.
    """
    _check(session.context, prompt, params, vocabulary.size)
    return _answers(session, prompt, params, vocabulary)


def _answers(
    session: Session, prompt: Sequence[int], params: SamplingParams, vocabulary: Vocabulary
) -> Iterator[Chunk]:
    seed = secrets.randbits(63) if params.seed is None else params.seed
    logits = session.prefill(prompt)[: vocabulary.size]
    room = session.context - len(prompt)
    length = room if params.max_tokens is None else min(params.max_tokens, room)
    ends = frozenset(params.stop_token_ids or ()) | (frozenset() if params.ignore_eos else vocabulary.ends)
    # One after the other, not as a batch: a matmul of several rows rounds otherwise than of one, and the
    # first of n answers would no longer be the one that n = 1 gives.
    for index in range(params.n):
        session.rewind(len(prompt))
        tokens = _tokens(session, logits, params, (seed, index))
        yield from _text(tokens, params, index, vocabulary.decoder(), ends, length)


_Chosen = tuple[int, dict[int, Logprob] | None]


def _tokens(
    session: Session, logits: Tensor, params: SamplingParams, stream: tuple[int, int]
) -> Iterator[_Chosen]:
    """Choose a token and feed it, without end. stream: seed and which answer."""
    vocabulary, step = len(logits), 0
    history = _history(session.ids, params, logits)
    while True:
        token = _choose(logits, params, history, (*stream, step))
        yield token, None if params.logprobs is None else logprobs(logits, token, params.logprobs)
        if history is not None:
            history.add(token)
        logits, step = session.feed([token])[:vocabulary], step + 1


def _text(
    tokens: Iterator[_Chosen],
    params: SamplingParams,
    index: int,
    decoder: StreamDecoder,
    ends: frozenset[int],
    length: int,
) -> Iterator[Chunk]:
    """Turn tokens into chunks: their text, stop strings, and why it ended."""
    stops = StopStrings(params.stop or ())
    try:
        for count, (token, entry) in enumerate(tokens, 1):
            ended, full = token in ends, count == length
            text, hit = stops.push("" if ended else decoder.push(token))
            if (ended or full) and not hit:
                rest, hit = _rest(decoder, stops)
                text += rest
            reason: FinishReason | None = "stop" if ended or hit else "length" if full else None
            yield Chunk(text, (token,), reason, index, entry)
            if reason is not None:
                return
    except KeyboardInterrupt:
        yield Chunk(_rest(decoder, stops)[0], (), "abort", index)
        raise


def _rest(decoder: StreamDecoder, stops: StopStrings) -> tuple[str, bool]:
    """Return all text that is still held back, and whether it completed a stop string."""
    text, hit = stops.push(decoder.flush())
    return (text, True) if hit else (text + stops.flush(), False)


@torch.inference_mode()
def _choose(
    logits: Tensor, params: SamplingParams, history: History | None, place: tuple[int, int, int]
) -> int:
    """Choose from logits (V,). place: seed, which answer, which token."""
    logits = penalise(logits, params, history)
    peak, token = logits.max(-1)  # one pass for both; the maximum with a NaN is NaN
    if not math.isfinite(peak.item()):
        raise CheckpointError(
            f"the model gives logits that are not finite (their maximum is {peak.item()})",
            remedy="Compare the weight files with their published hashes, or compute in float32",
        )
    if params.greedy:
        return int(token.item())
    point = torch.tensor(uniform(*place), dtype=torch.float64, device=logits.device)
    if params.top_k <= 0:
        return int(draw(keep(logits, params), point).item())
    logits, ids = narrow(logits, params.top_k)
    return int(ids[draw(keep(logits, params), point)].item())


def _history(ids: Sequence[int], params: SamplingParams, logits: Tensor) -> History | None:
    if params.repetition_penalty == 1 and params.frequency_penalty == 0 and params.presence_penalty == 0:
        return None
    return History.of(torch.tensor(ids, device=logits.device), len(logits))


def _check(context: int, prompt: Sequence[int], params: SamplingParams, vocabulary: int) -> None:
    if not prompt:
        raise RequestError("the prompt is empty: there is no token to start from")
    if len(prompt) >= context:
        raise RequestError(
            f"the prompt has {len(prompt)} tokens, and the context of {context} must hold it and an answer; "
            "shorten the prompt, or open the model with a larger context"
        )
    named: dict[str, Iterable[object]] = {
        "the prompt": prompt,
        "stop_token_ids": params.stop_token_ids or (),
        "logit_bias": params.logit_bias or (),
    }
    for name, ids in named.items():
        for i in ids:
            if not isinstance(i, int) or not 0 <= i < vocabulary:
                raise RequestError(
                    f"token {show(i)} in {name} is not one of the model's 0 to {vocabulary - 1}"
                )


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences begin with in common."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
