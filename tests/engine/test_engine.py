"""What an engine promises beside the same answers: sharing, guessing, reading, and memory as it is needed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bestiary import LLM, SamplingParams
from bestiary.engine import Engine, Job, Reading, open_engine
from bestiary.errors import RequestError
from bestiary.run.answer import Answer
from tests import adapted

TEXT = "one two three, one two three, one two three, one two "


def job(llm: LLM, text: str = TEXT, *, salt: str = "", **params: Any) -> Job:
    request = llm.asker.continuation(text)
    chosen = SamplingParams(**{"max_tokens": 24, "seed": 5, **params})
    return Job(request.ids, chosen, llm.asker.vocabulary(request), salt=salt)


def run(engine: Engine, *jobs: Job) -> list[list[list[int]]]:
    """Return the answers' ids of each job, by index."""
    numbers = [engine.add(one) for one in jobs]
    given: dict[int, dict[int, list[int]]] = {number: defaultdict(list) for number in numbers}
    while engine.busy:
        for update in engine.step():
            assert update.error is None
            assert update.chunk is not None
            given[update.job][update.chunk.index] += update.chunk.ids
    return [
        [given[number][i] for i in range(one.params.n)] for number, one in zip(numbers, jobs, strict=True)
    ]


def by_itself(llm: LLM, one: Job) -> list[list[int]]:
    """The same by LLM.generate: a session of its own."""
    return [answer.token_ids for answer in llm.generate([list(one.prompt)], one.params)[0].outputs]


# What comes out.


def test_answers_are_those_of_the_model_opened_alone(llm: LLM) -> None:
    asked = [job(llm, TEXT * (1 + i % 3), temperature=0.9, seed=i, n=1 + i % 3) for i in range(7)]
    alone = [by_itself(llm, one) for one in asked]
    assert run(open_engine(llm), *asked) == alone


@pytest.mark.parametrize(
    "how", [{}, {"temperature": 0.0}, {"regex": "[a-z ]{3,40}"}, {"frequency_penalty": 0.7}]
)
@pytest.mark.parametrize("drafted", [False, True])
def test_guesses_change_nothing_but_the_number_of_steps(llm: LLM, how: dict[str, Any], drafted: bool) -> None:
    asked = [job(llm, TEXT * (1 + i), **{"seed": i, **how}) for i in range(4)]
    plain, guessing = open_engine(llm), open_engine(llm, guesses=5, draft=llm if drafted else None)
    assert run(plain, *asked) == run(guessing, *asked)
    said = guessing.stats()
    assert said.guessed >= said.accepted
    assert plain.stats().guessed == 0
    if drafted and not how:  # its own model draws what it draws
        assert said.accepted > said.new_tokens / 2


def test_guesses_under_pressure_change_nothing(llm: LLM) -> None:
    asked = [job(llm, f"{i}{TEXT}", seed=i, max_tokens=60) for i in range(6)]
    narrow = open_engine(llm, tokens=256, batch=4, chunk=24, guesses=6, draft=llm)
    assert run(narrow, *asked) == run(open_engine(llm), *asked)
    assert narrow.stats().preempted > 0
    assert narrow.stats().free + narrow.stats().cached == narrow.stats().pages


# What is shared.


def test_a_prompt_that_was_there_is_not_computed_again(llm: LLM) -> None:
    engine = open_engine(llm)
    first = run(engine, job(llm))
    before = engine.stats()
    assert run(engine, job(llm)) == first
    after = engine.stats()
    whole = (len(job(llm).prompt) - 1) // 16 * 16
    assert after.reused_tokens - before.reused_tokens == whole > 0
    assert after.prompt_tokens - before.prompt_tokens == len(job(llm).prompt) - whole


@pytest.mark.parametrize("share", [True, False])
def test_nothing_is_shared_across_salts_or_when_told_not_to(llm: LLM, share: bool) -> None:
    engine = open_engine(llm, share=share)
    run(engine, job(llm, salt="mine"))
    run(engine, job(llm, salt="yours" if share else "mine"))
    assert engine.stats().reused_tokens == 0


def test_answers_to_one_prompt_compute_it_once(llm: LLM) -> None:
    engine = open_engine(llm, share=False)
    run(engine, job(llm, n=8))
    tokens = len(job(llm).prompt)
    assert engine.stats().prompt_tokens == tokens + 7 * (tokens - (tokens - 1) // 16 * 16)


# Adapters.


def test_jobs_of_one_batch_have_their_own_adapters(folder: Path, tmp_path: Path) -> None:
    q = "model.layers.1.self_attn.q_proj"
    named = {}
    for seed, name in enumerate(("a", "b")):
        a, b = adapted.factors(32, 32, seed=seed)
        tensors = {f"{q}.lora_A.weight": a * 4, f"{q}.lora_B.weight": b * 4}
        named[name] = adapted.write(tmp_path / name, tensors)
    alone = {name: by_itself(LLM(folder, adapter=at), job(LLM(folder))) for name, at in named.items()}
    llm = LLM(folder)
    plain = by_itself(llm, job(llm))
    engine = open_engine(llm, adapters=True)
    for name, at in named.items():
        engine.attach(name, at)
    asked = [replace(job(llm), adapter=name) for name in ("a", None, "b", "a")]
    want = [alone["a"], plain, alone["b"], alone["a"]]
    assert len({str(one) for one in want}) == 3
    assert run(engine, *asked) == want
    assert run(engine, *asked) == want  # each finds the pages of its own adapter
    assert engine.stats().reused_tokens > 0
    waiting = engine.add(asked[0])
    with pytest.raises(RequestError, match="1 answer"):
        engine.detach("a")
    engine.abort(waiting)
    engine.detach("a")
    engine.attach("a", named["b"])  # the name of another: nothing of the first is found
    assert run(engine, asked[0]) == [alone["b"]]


# What ends early.


def test_what_goes_wrong_with_one_answer_is_its_jobs_alone(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    class Panic(BaseException):
        """As the tokenizers' PanicException is: no Exception."""

    take = Answer.take

    def panics(self: Answer, logits: torch.Tensor) -> Any:
        if self.count == 3 and self.index == 1:
            raise Panic
        return take(self, logits)

    monkeypatch.setattr(Answer, "take", panics)
    engine = open_engine(llm)
    bad, good = engine.add(job(llm, n=3)), engine.add(job(llm, seed=9))
    errors, ids = list[tuple[int, type]](), list[int]()
    while engine.busy:
        for update in engine.step():
            errors += [(update.job, type(update.error))] if update.error else []
            ids += update.chunk.ids if update.chunk and update.job == good else []
    assert errors == [(bad, Panic)]
    monkeypatch.undo()
    assert [[ids]] == run(open_engine(llm), job(llm, seed=9))
    assert engine.stats().free + engine.stats().cached == engine.stats().pages


# What is read.


@pytest.mark.parametrize("deterministic", [False, True])
def test_vectors_are_those_of_embed(llm: LLM, deterministic: bool) -> None:
    texts = ["a", "some words", TEXT, TEXT * 4]
    engine = open_engine(llm, deterministic=deterministic)
    writing = engine.add(job(llm))
    reading = engine.add(Reading([llm.tokenizer.around.wrap(llm.tokenizer.encode(t)).ids for t in texts]))
    gone = engine.add(Reading([[1, 2, 3]] * 4))
    assert engine.abort(gone)
    vectors = [u.vectors for _ in range(100) for u in engine.step() if u.job == reading and u.vectors]
    assert engine.abort(writing) is False
    assert len(vectors) == 1
    found = torch.stack([torch.as_tensor(one) for one in vectors[0] or ()])
    torch.testing.assert_close(found, llm.embed(texts), atol=1e-5, rtol=0)


# What is refused.


def test_what_cannot_work_is_refused_by_name(llm: LLM) -> None:
    engine = open_engine(llm, tokens=64)
    with pytest.raises(RequestError, match="64"):
        engine.add(job(llm, TEXT * 3))
    with pytest.raises(RequestError, match="no adapter 'absent'"):
        engine.add(Job([1], SamplingParams(), job(llm).vocabulary, adapter="absent"))
    with pytest.raises(RequestError, match="no tokens"):
        engine.add(Reading([[1], []]))
    with pytest.raises(RequestError, match="a cache of 15 tokens"):
        open_engine(llm, tokens=15)
    with pytest.raises(RequestError, match="guesses=17"):
        open_engine(llm, guesses=17)
    assert not engine.busy


# Memory.


def test_an_engine_takes_memory_as_it_is_written_on(llm: LLM) -> None:
    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

    before = resident()
    engine = open_engine(llm, tokens=2_000_000)  # 1 GB
    run(engine, job(llm))
    assert resident() - before < 100


@pytest.mark.default_model
def test_the_default_model_writes_the_same_alone_and_in_a_crowd(default_model: Path) -> None:
    llm = LLM(default_model)
    asked = [job(llm, TEXT * (1 + i % 4), temperature=0.8, seed=i, max_tokens=12) for i in range(12)]
    alone = [
        [one.token_ids for one in llm.generate([list(one.prompt)], one.params)[0].outputs] for one in asked
    ]
    crowd = open_engine(llm, deterministic=True, tokens=1024, chunk=50, guesses=3)
    assert crowd.reason is None  # row by row: determinism costs nothing
    assert run(crowd, *asked) == alone
