"""Continuous batching: jobs come and go between steps, a step is one forward pass of what is under way."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from .. import cache
from ..bricks import Attention, DynamicNTK, LongRope, Rotary
from ..errors import RequestError
from ..models import Encoder, EncoderDecoder, Model
from ..prompt import Prompt
from ..quant.fused import row_independent
from ..run import encode
from ..run.answer import Answer
from ..run.encode import Pool
from ..run.room import Room
from ..run.vocabulary import Bounds
from .pages import PAGE, Pages
from .readings import Readings
from .runner import Mixture, Runner
from .scheduler import Scheduler, Work
from .sequence import Job, Reading, Sequence, Update
from .speculate import Guesser

# Tokens of a piece of a prompt where each sequence is computed by itself.
UNIT = 64
MOST_WAITING = 1 << 16
_NEVER_CAUGHT = (KeyboardInterrupt, SystemExit, GeneratorExit)


@dataclass(frozen=True)
class Stats:
    """Where the engine stands, and what it has done.

    running, waiting: sequences. pages: in all; free: that hold nothing; cached: that nobody holds and that
    are kept for those who begin alike. preempted: how often a sequence gave up its pages. prompt_tokens,
    new_tokens: computed of prompts, and written. reused_tokens: of prompts that were there before. guessed,
    accepted: tokens of speculation.
    """

    running: int
    waiting: int
    pages: int
    free: int
    cached: int
    preempted: int
    prompt_tokens: int
    new_tokens: int
    reused_tokens: int
    guessed: int
    accepted: int


class Engine:
    """A model that writes many answers at once. One thread owns it.

    room: the model's context. tokens: of all keys and values. batch: most sequences at work. chunk: most
    tokens of a step. deterministic: an answer's numbers depend on its request alone, not on what else runs,
    on what was shared or on whether it gave way. Where the kernels compute each row by itself this costs
    nothing (quant.fused.row_independent); elsewhere each sequence is computed by itself. share: keep what
    prompts have in common. cache_dtype: of keys and values, the model's own unless told; "int8" keeps eight
    bits. pooling: makes vectors of texts, for Readings. mixture: adapters that jobs may name. guesser:
    proposes what follows, to compute several tokens of an answer at once; what comes out is the same.

    Raises RequestError for sizes that are no use.
    """

    def __init__(
        self,
        model: Model,
        room: Room,
        *,
        tokens: int,
        batch: int = 16,
        chunk: int = 512,
        deterministic: bool = False,
        share: bool = True,
        cache_dtype: str | None = None,
        pooling: Pool | None = None,
        mixture: Mixture | None = None,
        guesser: Guesser | None = None,
    ) -> None:
        count = tokens // PAGE
        if count < 1 or batch < 1 or chunk < 1:
            raise RequestError(
                f"a cache of {tokens} tokens, {batch} sequences and {chunk} tokens a step cannot work: they "
                f"should be {PAGE}, 1 and 1 or more"
            )
        self.room = replace(room, context=min(room.context, count * PAGE))
        self._by_length = _reads_length(model)
        self.reason = _dependence(model, mixture) if deterministic else None
        unit = 1 if self.reason is None else UNIT
        self._model, self._device, self._chunk = model, next(model.parameters()).device, chunk
        self._pages = Pages(count)
        self._scheduler = Scheduler(self._pages, batch=batch, chunk=chunk, unit=unit)
        self._runner = Runner(model, _pool(model, count, cache_dtype), mixture, unit=unit)
        self._readings = Readings(model, pooling, tokens=max(chunk, encode.TOKENS), alone=deterministic)
        self._mixture, self._attached = mixture, dict[str, int]()
        self._guesser = None if unit > 1 else guesser
        self._share, self._numbers = share, iter(range(1, 1 << 62))
        self._jobs: dict[int, list[Sequence]] = {}
        self._prompt_tokens = self._new_tokens = self._reused = self._guessed = self._accepted = 0

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._jobs) or len(self._readings) > 0

    def add(self, job: Job | Reading) -> int:
        """Take a job; return its number.

        Raises RequestError, before anything is computed, for what can never be answered (run/generate.py).
        """
        if isinstance(job, Reading):
            if not all(map(len, job.texts)):
                raise RequestError("a text has no tokens: there is nothing to read")
            number = next(self._numbers)
            self._readings.add(number, job)
            return number
        return self._ask(job)

    def _ask(self, job: Job) -> int:
        if isinstance(self._model, Encoder):
            raise RequestError("this model reads texts only; ask for their vectors")
        bounds = Bounds.of(self.room, job.prompt, job.params, job.vocabulary)
        if len(self._scheduler.waiting) + job.params.n > MOST_WAITING:
            raise RequestError(f"{MOST_WAITING} answers are waiting already; ask again later")
        number = next(self._numbers)
        seed = secrets.randbits(63) if job.params.seed is None else job.params.seed
        if job.adapter is not None and job.adapter not in self._attached:
            raise RequestError(f"there is no adapter {job.adapter[:80]!r} here")
        begun = list(self.room.begun(job.prompt))
        prompt = None if isinstance(self._model, EncoderDecoder) else self._read(job.prompt)
        root, leader = self._root(job, prompt, number), None
        sequences = list[Sequence]()
        for index in range(job.params.n):
            answer = Answer(job.params, job.vocabulary, bounds, begun, seed=seed, index=index)
            one = Sequence(number, answer, list(begun), len(begun), job.prompt, prompt, job.adapter, root)
            one.leader = leader
            leader = sequences[0] if sequences else one if root is not None else None
            sequences.append(one)
        self._jobs[number] = sequences
        self._scheduler.waiting.extend(sequences)
        return number

    def abort(self, job: int) -> bool:
        """Give a job up, its pages free at once; tell whether it was under way."""
        sequences = self._jobs.pop(job, None)
        for sequence in sequences or ():
            if not sequence.over:
                self._scheduler.leave(sequence)
        return sequences is not None or self._readings.abort(job)

    def attach(self, name: str, path: str | Path) -> None:
        """Let jobs name an adapter. Raises RequestError, and as adapters.read does, with nothing attached."""
        if self._mixture is None:
            raise RequestError("this model takes no adapters while it runs; attach them as it is opened")
        self._mixture.attach(name, path)
        self._attached[name] = next(self._numbers)

    def detach(self, name: str) -> None:
        """Let go of an adapter. Raises RequestError for one that is not there, or that answers still need."""
        if self._mixture is None or name not in self._attached:
            raise RequestError(f"there is no adapter {name[:80]!r} here")
        if users := sum(one.adapter == name for jobs in self._jobs.values() for one in jobs if not one.over):
            raise RequestError(
                f"{users} answer(s) under way need adapter {name[:80]!r}; ask again after them"
            )
        self._mixture.detach(name)
        del self._attached[name]

    def step(self) -> list[Update]:
        """Compute one step; return what it gave, in order."""
        updates = self._readings.step()
        works = [self._begun(work) for work in self._scheduler.plan()]
        if not works:
            return updates
        works = self._guessing(works)
        for work, logits in zip(works, self._runner.run(works), strict=True):
            if work.sequence.over:  # another answer to the same job failed
                continue
            self._computed(work)
            if logits is not None:
                updates.extend(self._written(work, logits))
        return updates

    def stats(self) -> Stats:
        """Return where the engine stands."""
        return Stats(
            running=len(self._scheduler.running),
            waiting=len(self._scheduler.waiting),
            pages=self._pages.count,
            free=self._pages.free,
            cached=self._pages.cached,
            preempted=self._scheduler.preempted,
            prompt_tokens=self._prompt_tokens,
            new_tokens=self._new_tokens,
            reused_tokens=self._reused,
            guessed=self._guessed,
            accepted=self._accepted,
        )

    # What a step does.

    def _begun(self, work: Work) -> Work:
        """Read the source that a sequence answers, once for all answers of its job."""
        sequence = work.sequence
        if sequence.prompt is None:
            sequence.prompt = self._read(sequence.source)
            for other in self._jobs[sequence.job]:
                other.prompt = sequence.prompt
        return work

    def _guessing(self, works: list[Work]) -> list[Work]:
        """Add to each work that writes what may follow, as far as a step and the pages have room."""
        if self._guesser is None:
            return works
        left, rooms = self._chunk - sum(work.count for work in works), list[int]()
        for work in works:
            sequence = work.sequence
            writes = work.count == sequence.pending and sequence.done >= sequence.begun
            room = max(0, min(self._guesser.most, left, sequence.answer.left - 1)) if writes else 0
            room = room if room and self._scheduler.extend(sequence, work.count + room) else 0
            left -= room
            rooms.append(room)
        guessed = self._guesser.guess(works, rooms)
        return [replace(work, guesses=guesses) for work, guesses in zip(works, guessed, strict=True)]

    def _computed(self, work: Work) -> None:
        sequence, before = work.sequence, work.sequence.done
        self._prompt_tokens += max(0, min(before + work.count, sequence.begun) - before)
        self._scheduler.computed(sequence, before + work.count)

    def _written(self, work: Work, logits: Tensor) -> Iterator[Update]:
        """Choose what follows; where a guess was right, what follows that is computed already."""
        sequence = work.sequence
        self._guessed += len(work.guesses)
        self._reused += 0 if sequence.answer.count else sequence.cached
        for i, row in enumerate(logits):
            try:
                chunk = sequence.answer.take(row)
            except _NEVER_CAUGHT:
                raise
            except BaseException as error:  # noqa: BLE001 (one request's, whatever it is: tokenizers panic)
                self.abort(sequence.job)
                yield Update(sequence.job, error=error)
                return
            sequence.tokens += chunk.ids
            self._new_tokens += 1
            yield Update(sequence.job, chunk, cached=sequence.cached)
            if chunk.finish_reason is not None:
                self._end(sequence)
                return
            if i == len(work.guesses) or (work.guesses[i],) != chunk.ids:
                return
            self._accepted += 1
            self._scheduler.computed(sequence, sequence.done + 1)

    def _end(self, sequence: Sequence) -> None:
        self._scheduler.leave(sequence)
        if all(one.over for one in self._jobs[sequence.job]):
            del self._jobs[sequence.job]

    # What is known of a prompt.

    @torch.inference_mode()
    def _read(self, prompt: Iterable[int]) -> Prompt:
        return self._model.prompt(torch.tensor([list(prompt)], device=self._device))

    def _root(self, job: Job, prompt: Prompt | None, number: int) -> bytes | None:
        """Return what the names of a prompt's pages begin with; None where they hold for it alone."""
        if prompt is None or self._by_length:  # the answer to a source sees the source
            return None
        alone = (prompt.prefix, prompt.since, prompt.segments, prompt.docked, prompt.memory)
        if any(part is not None for part in alone):
            return None
        marks = [None if mark is None else mark.tolist() for mark in (prompt.blank, prompt.stretch)]
        adapter = None if job.adapter is None else self._attached[job.adapter]
        said = [job.salt, adapter, marks, None if self._share else number]
        return hashlib.sha256(json.dumps(said).encode()).digest()


def _pool(model: Model, pages: int, dtype: str | None) -> cache.Pool:
    """Return the pages for a model. Raises RequestError for a type that keys and values cannot have."""
    kinds: dict[str | None, type[cache.Pool]] = {None: cache.Pool, "int8": cache.Pool8}
    if dtype not in kinds:
        raise RequestError(f"cache_dtype={str(dtype)[:80]!r} should be int8, or the model's own (None)")
    like = next(model.parameters())  # the norms' type is the one that is computed in
    return kinds[dtype].empty(model, pages, PAGE, dtype=like.dtype, device=like.device)


def _reads_length(model: Model) -> bool:
    """Tell whether a token turns by how long its sequence is: its key is then of one length, and one step."""
    return any(
        isinstance(rotary, Rotary) and isinstance(rotary.frequencies, DynamicNTK | LongRope)
        for one in model.modules()
        if isinstance(one, Attention)
        for rotary in (one.position, getattr(one.score.meeting, "rotary", None))
    )


def _dependence(model: Model, mixture: Mixture | None) -> str | None:
    """Return why a step of many sequences may give one of them other numbers than alone, or None."""
    if mixture is not None:
        return "adapters may be put beside it, whose products round by the rows of a batch"
    if _reads_length(model):
        return "its positions turn by how long a sequence is"
    return row_independent(model)
