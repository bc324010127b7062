"""The engine as one object, under random schedules: jobs come and are given up at any step.

Nothing of HTTP is here, so that a fault is found with its seed. Every schedule must leave all pages free, and
give each job what it is given alone, in an engine with room for it.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bestiary import LLM, SamplingParams
from bestiary.engine import Engine, Job
from bestiary.errors import RequestError
from tests.serve.load.driving import LETTERS

Answers = dict[int, list[int]]  # by index
ROOMY: dict[str, Any] = {"tokens": 8192, "batch": 64, "chunk": 512, "share": False}
KINDS: dict[str, dict[str, Any]] = {
    "batched": ROOMY,
    "shared": {**ROOMY, "share": True},
    "chunked": {**ROOMY, "chunk": 16},
    "narrow": {**ROOMY, "tokens": 384},
    "all": {"tokens": 448, "batch": 7, "chunk": 16, "share": True},
}


@pytest.fixture(scope="module")
def llm(chat_model: Path) -> LLM:
    """The tiny chat model."""
    return LLM(chat_model)


def engine(llm: LLM, **options: Any) -> Engine:
    """A deterministic engine."""
    return Engine(llm.writer, llm.asker.facts.room, deterministic=True, cache_dtype=None, **options)


def jobs(llm: LLM, count: int, *, seed: int) -> list[Job]:
    """Greedy and sampled jobs; some begin alike."""
    rng = random.Random(seed)
    common = [[rng.randrange(LETTERS) for _ in range(size)] for size in (15, 16, 33, 80)]
    made = []
    for i in range(count):
        own = [rng.randrange(LETTERS) for _ in range(rng.randint(1, 60))]
        prompt = rng.choice(common) + own if rng.random() < 0.7 else own
        temperature = rng.choice((0.0, 0.7, 1.3))
        params = SamplingParams(
            max_tokens=rng.randint(1, 50),
            temperature=temperature,
            seed=i,
            n=rng.choice((1, 1, 1, 2, 4)) if temperature else 1,
            ignore_eos=rng.random() < 0.8,
            frequency_penalty=rng.choice((0.0, 0.5)),
        )
        request = llm.asker.continuation(prompt)
        made.append(Job(prompt, params, llm.asker.vocabulary(request), salt=rng.choice(("", "", "other"))))
    return made


@dataclass
class Schedule:
    """One run of an engine: what came of each job, by its place in the list."""

    engine: Engine
    given: dict[int, Answers] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    left: dict[int, int] = field(default_factory=dict)  # answers that have not ended
    numbers: dict[int, int] = field(default_factory=dict)  # the engine's number -> place
    gone: set[int] = field(default_factory=set)

    def add(self, place: int, job: Job) -> None:
        number = self.engine.add(job)
        assert number not in self.numbers
        self.numbers[number], self.left[place] = place, job.params.n

    def give_up(self, number: int) -> None:
        assert self.engine.abort(number)
        assert not self.engine.abort(number)
        self.gone.add(number)

    def step(self) -> None:
        for update in self.engine.step():
            assert update.job not in self.gone, "an update of a job that was given up"
            assert update.error is None
            assert update.chunk is not None
            place, index = self.numbers[update.job], update.chunk.index
            assert self.left[place] > 0
            self.given[place][index].extend(update.chunk.ids)
            self.left[place] -= update.chunk.finish_reason is not None
        self.check()

    def open(self) -> list[int]:
        """The numbers of jobs that are under way."""
        return [n for n, place in self.numbers.items() if n not in self.gone and self.left[place]]

    def check(self) -> None:
        """Hold the counts to what they count."""
        said = self.engine.stats()
        assert 0 <= said.free + said.cached <= said.pages
        assert min(said.running, said.waiting, said.free, said.cached) >= 0
        assert self.engine.busy == bool(self.open()), said

    def drain(self) -> None:
        """Step until nothing is left; all pages are free then."""
        for _ in range(20_000):
            if not self.engine.busy:
                break
            self.step()
        said = self.engine.stats()
        assert (said.running, said.waiting, said.free + said.cached) == (0, 0, said.pages)
        assert not self.open()


@cache
def alone(llm: LLM, count: int, seed: int) -> dict[int, Answers]:
    """What each job is given alone, its prompt in one step."""
    schedule = Schedule(engine(llm, **ROOMY))
    for place, job in enumerate(jobs(llm, count, seed=seed)):
        schedule.add(place, job)
        schedule.drain()
    return schedule.given


def disturbed(schedule: Schedule, asked: list[Job], rng: random.Random) -> None:
    """Add jobs between steps, and give some up: before their first, in a prompt, in an answer."""
    waiting = list(enumerate(asked))
    while waiting:
        for place, job in waiting[: (size := rng.choice((0, 0, 1, 2, 9)))]:
            schedule.add(place, job)
        waiting = waiting[size:]
        for number in schedule.open():
            if rng.random() < 0.02:
                schedule.give_up(number)
        schedule.step()
    schedule.drain()


def check(llm: LLM, kind: str, count: int, *, seed: int) -> None:
    """Run one schedule of a kind of engine."""
    asked = jobs(llm, count, seed=seed)
    expected = alone(llm, count, seed)
    schedule = Schedule(engine(llm, **KINDS[kind]))
    disturbed(schedule, asked, random.Random(seed))
    lost = {schedule.numbers[number] for number in schedule.gone}
    assert len(lost) < count
    for place, answers in schedule.given.items():
        for index, ids in answers.items():
            whole = expected[place][index]
            assert ids == (whole[: len(ids)] if place in lost else whole), (kind, seed, place, index)
    assert set(schedule.given) | lost == set(range(count))
    if KINDS[kind]["tokens"] < 512:
        assert schedule.engine.stats().preempted > 0
    if KINDS[kind]["share"]:
        assert schedule.engine.stats().reused_tokens > 0


@pytest.mark.parametrize("kind", KINDS)
def test_any_schedule_gives_each_job_its_answer_and_frees_all_pages(llm: LLM, kind: str) -> None:
    check(llm, kind, 30, seed=1)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS)
def test_many_schedules(llm: LLM, kind: str) -> None:
    for seed in range(2, 42):
        check(llm, kind, 60, seed=seed)


def test_what_can_never_run_is_refused_and_holds_nothing(llm: LLM) -> None:
    narrow = engine(llm, **KINDS["narrow"])
    before = narrow.stats()
    request = llm.asker.continuation([1])
    for prompt in ([], [1] * 512, [1] * 400, [10**6], [-1]):
        with pytest.raises(RequestError):
            narrow.add(Job(prompt, SamplingParams(max_tokens=16), llm.asker.vocabulary(request)))
        assert not narrow.busy
        assert narrow.stats() == before
    assert narrow.step() == []
    assert not narrow.abort(1)
