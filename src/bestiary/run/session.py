"""What a model has seen of one conversation: tokens, their keys and values, and the source that it answers.

State is passed, never planted: it lives in a Session that the caller holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..context import Cache, Prompt, Stream
from ..errors import RequestError
from ..models import EncoderDecoder, Pick, Writer
from .room import Room

# Tokens of a prompt computed at once: enough for full speed, and few enough that the activations of a long
# prompt need no more memory than those of a short one.
CHUNK = 512
# A cache has room for a multiple of this many tokens, and grows by half when it is full: little is wasted,
# and a token is copied about twice in all.
ROOM = 256

_LAST: Pick = (slice(None), -1)


class Session:
    """The tokens a model has seen, in order, with their keys and values.

    A prompt that begins with the same tokens costs only what is new: the next turn of a chat, the next of n
    answers. An encoder-decoder's prompt is its source: it is encoded once, and what is seen here are the
    tokens of the answer, behind those that every answer begins with. Memory grows with the tokens, up to
    `context` of them (and as many of a source). Not for two threads at once.
    """

    def __init__(self, model: Writer, context: int) -> None:
        self.model, self.room = model, Room.of(model, context)
        self.ids: list[int] = []
        self._source: list[int] | None = None
        self._cache: Cache | None = None
        self._prompt: Prompt | None = None

    @torch.inference_mode()
    def prefill(self, prompt: Sequence[int]) -> Tensor:
        """Make `prompt`, not empty, all that was seen; return float32 logits (V,) of the token after it.

        Of an encoder-decoder, `prompt` is the source, and the logits are of its answer's first token.
        """
        if isinstance(self.model, EncoderDecoder):
            if self._source != list(prompt):
                read = self.model.prompt(self._tensor([prompt]))
                self._source, self._prompt, self.ids = list(prompt), read, []
        else:
            before, self._prompt = self._prompt, self.model.prompt(self._tensor([prompt]))
            if before is not None and not self._prompt.continues(before):
                self.rewind(0)  # what was computed saw another beginning
        begun = self.room.begun(prompt)
        # The last token is always computed: its logits were not kept.
        self.rewind(min(common(self.ids, begun), len(begun) - 1))
        return self.feed(begun[len(self.ids) :])

    @torch.inference_mode()
    def feed(self, tokens: Sequence[int]) -> Tensor:
        """Append at least one token; return float32 logits (V,) of the one after them.

        Raises RequestError when they do not fit the context.
        """
        total = len(self.ids) + len(tokens)
        cache = self._grown(total)
        for part in self._parts(tokens):
            ctx = Stream.at(cache, len(self.ids), len(part), self._prompt)
            logits = self.model(torch.tensor([part], device=ctx.positions.device), ctx, _LAST)
            self.ids.extend(part)  # only now: an interrupted step leaves the session as it was
        return logits[0].float()  # type: ignore[no-any-return]

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        del self.ids[length:]

    def branches(self, count: int) -> Branches:
        """Return `count` continuations of what was seen, to be computed side by side."""
        cache = self._grown(len(self.ids))
        prompt = None if self._prompt is None else self._prompt.repeated(count)
        return Branches(self.model, cache.repeated(count), prompt, len(self.ids), self.room.context)

    def _parts(self, tokens: Sequence[int]) -> Iterator[Sequence[int]]:
        """Cut tokens into what is computed at once; a prefix that all of its tokens see stays whole."""
        prefix = None if self._prompt is None or self._prompt.prefix is None else self._prompt.prefix
        first = max(CHUNK, 0 if prefix is None else int(prefix) - len(self.ids))
        yield tokens[:first]
        for begin in range(first, len(tokens), CHUNK):
            yield tokens[begin : begin + CHUNK]

    def _grown(self, length: int) -> Cache:
        had = 0 if self._cache is None else self._cache.capacity
        room = _room(length, had, self.room.context)
        if self._cache is None:
            like = next(self.model.parameters())  # the norms' type is the one that is computed in
            self._cache = Cache.empty(self.model, 1, room, dtype=like.dtype, device=like.device)
        elif length > had:
            self._cache.grow(room)
        return self._cache

    def _tensor(self, rows: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor(rows, device=next(self.model.parameters()).device)


class Branches:
    """Continuations of one beginning, each a row of a batch, as beams are: Session.branches makes them.

    The session that they come from stays as it is. A source and what the beginning was are held once.
    """

    def __init__(self, model: Writer, cache: Cache, prompt: Prompt | None, begin: int, context: int) -> None:
        self._model, self._cache, self._prompt, self._context = model, cache, prompt, context
        self._begin = self._length = begin

    @torch.inference_mode()
    def feed(self, rows: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """Let each branch go on from what row `rows[i]` holds, with `tokens[i]`.

        Returns float32 logits (branches, V). Raises RequestError when a token more does not fit the context.
        """
        cache, device = self._cache, self._cache.k[0].device
        cache.reorder(torch.tensor(rows, device=device), self._begin, self._length)
        cache.grow(_room(self._length + 1, cache.capacity, self._context))
        ctx = Stream.at(cache, self._length, 1, self._prompt)
        logits = self._model(torch.tensor(tokens, device=device)[:, None], ctx, _LAST)
        self._length += 1
        return logits.float()  # type: ignore[no-any-return]


def _room(length: int, had: int, context: int) -> int:
    """Return how many tokens a cache that has room for `had` should have room for, to hold `length`."""
    if length > context:
        raise RequestError(f"{length} tokens do not fit the context of {context}")
    return had if length <= had else min(context, -(-max(length, had + had // 2) // ROOM) * ROOM)


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many tokens two sequences begin with in common."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
