"""Every family through the engine: what it writes in company is what a session writes alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from bestiary.engine import Engine, Job
from bestiary.models import EncoderDecoder, Writer
from bestiary.quant.fused import fuse
from bestiary.run.generate import generate
from bestiary.run.params import SamplingParams
from bestiary.run.room import Room
from bestiary.run.session import Session
from bestiary.run.vocabulary import Vocabulary
from bestiary.text.stream import Bytes
from tests.subjects import WRITERS, Subject, subject

CONTEXT = 48
NEW = 9
# Pages for a little more than one sequence; prompts in pieces; few at a time; all at once.
CROWDS: dict[str, dict[str, Any]] = {
    "together": {"tokens": 2048, "batch": 16, "chunk": 512, "share": True},
    "pressed": {"tokens": CONTEXT + 16, "batch": 3, "chunk": 7, "share": True},
}


@pytest.fixture(params=WRITERS)
def it(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    return subject(request.param, tmp_path)


def vocabulary(it: Subject) -> Vocabulary:
    size = 1 + max((it.vocabulary - 1, *(it.special or ())))
    return Vocabulary(size, frozenset(), lambda: Bytes(lambda _: b"x"))


def prompts(it: Subject) -> list[list[int]]:
    """Some that begin alike, of lengths on both sides of a page's end."""
    common = it.tokens(1, 32)[0].tolist()
    lengths = (6, 15, 16, 17, 31, 33)
    return [(common[: max(6, n - 3)] + it.tokens(1, 3)[0].tolist())[: max(n, 6)] for n in lengths]


def jobs(it: Subject, asked: Sequence[list[int]]) -> list[Job]:
    words = vocabulary(it)
    chosen = (SamplingParams(max_tokens=NEW, temperature=t, seed=i) for i, t in enumerate((0, 0.9) * 3))
    return [Job(ids, params, words) for ids, params in zip(asked, chosen, strict=True)]


def run(engine: Engine, asked: Sequence[Job]) -> list[list[int]]:
    numbers = [engine.add(job) for job in asked]
    given: dict[int, list[int]] = {number: [] for number in numbers}
    while engine.busy:
        for update in engine.step():
            assert update.error is None
            assert update.chunk is not None
            given[update.job] += update.chunk.ids
    said = engine.stats()
    assert said.free + said.cached == said.pages
    return [given[number] for number in numbers]


def by_itself(it: Subject, job: Job) -> list[int]:
    session = Session(cast(Writer, it.model), CONTEXT)
    return [i for chunk in generate(session, job.prompt, job.params, job.vocabulary) for i in chunk.ids]


def test_in_company_as_in_a_session_of_its_own(it: Subject) -> None:
    model = cast(Writer, it.model)
    if isinstance(model, EncoderDecoder):
        asked = [it.tokens(1, 5 + i)[0].tolist() for i in range(6)]
    else:
        asked = prompts(it)
    fuse(model)
    made = jobs(it, asked)
    alone = [by_itself(it, job) for job in made]
    for name, crowd in CROWDS.items():
        engine = Engine(model, Room.of(model, CONTEXT), deterministic=name == "pressed", **crowd)
        assert run(engine, made) == alone, name
