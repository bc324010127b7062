"""Beam search against transformers' own: the same hypotheses, the same scores."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from transformers.generation.configuration_utils import GenerationMode
from transformers.models.t5.modeling_t5 import T5ForConditionalGeneration

from bestiary.context import Full
from bestiary.errors import CheckpointError, RequestError
from bestiary.load import load
from bestiary.models import EncoderDecoder, Writer
from bestiary.run import published
from bestiary.run.beams import Hypothesis, beam_search
from bestiary.run.params import BeamParams, by_gnmt, by_length
from bestiary.run.session import Session
from bestiary.run.vocabulary import Rules, Vocabulary
from bestiary.text.stream import Bytes
from tests import goldens, tiny
from tests.goldens import STORED, hints

CONTEXT = 64
PENALTIES = (0.0, 0.6, 1.0, 2.0, -1.0)
STOPPING = (True, False, "never")


class Pair(NamedTuple):
    """One checkpoint, opened twice."""

    model: Writer
    reference: Any

    @property
    def size(self) -> int:
        return int(self.reference.config.vocab_size)


def opened(case: str, folder: Path) -> Pair:
    """Open a tiny model, or a stored case of T5's family."""
    if case in tiny.ALL:
        reference = tiny.make(case, folder)
        return Pair(load(folder).decoder if case in tiny.MODELS else writer(folder), reference)
    (path,) = goldens.cases(case)
    return Pair(writer(path), T5ForConditionalGeneration.from_pretrained(path, attn_implementation="eager"))


def writer(path: Path) -> Writer:
    model = load(path).model
    assert isinstance(model, EncoderDecoder)
    return model


@pytest.fixture(scope="module", params=["llama", "t5", "t5-gated"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return opened(request.param, tmp_path_factory.mktemp("pair"))


def vocabulary(size: int, ends: Sequence[int] = (), **more: Any) -> Vocabulary:
    return Vocabulary(size, frozenset(ends), lambda: Bytes(lambda i: b"%d " % i), **more)


def prompts(size: int, count: int = 2) -> list[list[int]]:
    return [torch.randint(3, size, (length,)).tolist() for length in (9, 1, 14, 5)[:count]]


def search(pair: Pair, prompt: list[int], ends: Sequence[int] = (), **fields: Any) -> list[Hypothesis]:
    params = BeamParams(**{"max_tokens": 12, **fields})
    return beam_search(Session(pair.model, CONTEXT), prompt, params, vocabulary(pair.size, ends))


def theirs(
    pair: Pair, prompt: list[int], ends: Sequence[int] = (), **options: Any
) -> list[tuple[tuple[int, ...], float]]:
    """What transformers' generate finds, cut after the first end token, with its scores."""
    tokens = torch.tensor([prompt])
    given = {"max_new_tokens": 12, "num_beams": 4, "num_return_sequences": 4, "do_sample": False, **options}
    out = pair.reference.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        eos_token_id=list(ends) or None,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_scores=True,
        **given,
    )
    begin = 1 if pair.reference.config.is_encoder_decoder else len(prompt)
    # Behind its end a hypothesis is filled up: how long it is, its beam indices tell.
    lengths = (out.beam_indices >= 0).sum(-1).tolist()
    rows = zip(out.sequences[:, begin:].tolist(), lengths, out.sequences_scores.tolist(), strict=True)
    return [(tuple(row[:length]), score) for row, length, score in rows]


def assert_same(got: list[Hypothesis], want: list[tuple[tuple[int, ...], float]]) -> None:
    assert [one.ids for one in got] == [ids for ids, _ in want]
    # Below 1e-6 of a score of hundreds there is nothing left of float32.
    assert [one.score for one in got] == pytest.approx([score for _, score in want], abs=1e-4, rel=1e-6)


def likely(pair: Pair, prompt: list[int], count: int = 4) -> list[int]:
    """Tokens that a search meets often, so that hypotheses end when they are end tokens."""
    free = [i for one in search(pair, prompt, width=5, n=5) for i in one.ids[2:]]
    return sorted(set(free), key=lambda i: (-free.count(i), i))[:count]


@pytest.mark.parametrize("stopping", STOPPING)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_hypotheses_and_scores_are_transformers(pair: Pair, penalty: float, stopping: bool | str) -> None:
    finished = 0
    for prompt, width in itertools.product(prompts(pair.size), (2, 5)):
        for ends in ((), likely(pair, prompt), range(3, pair.size, 3)):
            fields: dict[str, Any] = {"length_penalty": penalty, "early_stopping": stopping}
            got = search(pair, prompt, ends, width=width, n=width, **fields)
            want = theirs(pair, prompt, ends, num_beams=width, num_return_sequences=width, **fields)
            assert_same(got, want)
            assert all((one.finish_reason == "stop") == (one.ids[-1] in ends) for one in got)
            finished += sum(one.finish_reason == "stop" and len(one.ids) < 12 for one in got)
    assert finished > 10 or penalty == 2.0  # answers really end, unless only the longest count


@pytest.mark.parametrize("most", [1, 2, 5, 30])
@pytest.mark.parametrize("count", [1, 4])
def test_short_and_long_answers(pair: Pair, most: int, count: int) -> None:
    for prompt in prompts(pair.size, 3):
        ends = likely(pair, prompt, 2)
        got = search(pair, prompt, ends, width=4, n=count, max_tokens=most)
        assert_same(got, theirs(pair, prompt, ends, num_return_sequences=count, max_new_tokens=most))


def test_the_settings_differ(pair: Pair) -> None:
    """Each of them changes what is found, or none of the comparisons would say anything."""
    found = set()
    for prompt in prompts(pair.size, 4):
        ends = likely(pair, prompt)
        for penalty, stopping in itertools.product(PENALTIES, STOPPING):
            got = search(pair, prompt, ends, n=4, length_penalty=penalty, early_stopping=stopping)
            found.add((prompt[0], tuple(one.ids for one in got)))
    assert len(found) > 8


def test_one_beam_is_transformers_search_of_one(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which its generate takes for greedy search unless it is told."""
    monkeypatch.setattr(
        transformers.GenerationConfig, "get_generation_mode", lambda *_: GenerationMode.BEAM_SEARCH
    )
    for prompt in prompts(pair.size, 3):
        ends = likely(pair, prompt, 3)
        for stopping in STOPPING:
            got = search(pair, prompt, ends, width=1, early_stopping=stopping)
            assert_same(
                got, theirs(pair, prompt, ends, num_beams=1, num_return_sequences=1, early_stopping=stopping)
            )


@pytest.mark.parametrize("case", ["t5-small", "t0-3b"])
@pytest.mark.parametrize("width", [2, 4])
def test_reference_cases(case: str, width: int, goldens: Path, tmp_path: Path) -> None:
    pair = opened(case, tmp_path)
    for prompt in prompts(pair.size, 3):
        both = ((1,), likely(pair, prompt))
        for ends, penalty, stopping in itertools.product(both, (0.0, 1.0, 2.0), STOPPING):
            fields: dict[str, Any] = {"length_penalty": penalty, "early_stopping": stopping}
            got = search(pair, prompt, ends, width=width, n=width, **fields)
            assert_same(
                got, theirs(pair, prompt, ends, num_beams=width, num_return_sequences=width, **fields)
            )


@pytest.mark.parametrize("case", ["llama-dynamic", "mistral", "bloom", "gpt2"])
def test_other_ways_to_stand(case: str, tmp_path: Path) -> None:
    pair = opened(case, tmp_path)
    for prompt in prompts(pair.size, 3):
        pair.reference(torch.tensor([prompt[:1]]))  # its dynamic positions remember the longest so far
        ends = likely(pair, prompt, 2)
        assert_same(search(pair, prompt, ends, n=4), theirs(pair, prompt, ends))


@pytest.mark.parametrize("case", ["bart", "mbart", "marian", "pegasus", "m2m-100"])
def test_translators_with_the_rules_of_their_configs(case: str, tmp_path: Path) -> None:
    """Each with the first token, the last and the bad words that its files name."""
    reference = tiny.make(case, tmp_path)
    model = load(tmp_path)
    assert isinstance(model.model, EncoderDecoder)
    pair, said = Pair(model.model, reference), published.rules(model, tmp_path)
    for prompt in prompts(pair.size, 3):
        ends = likely(pair, prompt, 2)
        words = vocabulary(pair.size, ends, rules=said)
        got = beam_search(Session(pair.model, CONTEXT), prompt, BeamParams(n=4, max_tokens=12), words)
        assert_same(got, theirs(pair, prompt, ends))


# What transformers cannot compute: every hypothesis is what the model says of it, everything present.


def scored(model: Writer, prompt: list[int], answer: Sequence[int]) -> float:
    source = torch.tensor([prompt])
    before = list(model.start) if isinstance(model, EncoderDecoder) else prompt
    tokens = torch.tensor([[*before, *answer]])
    with torch.inference_mode():
        begin = model.prompt(source)
        logits = model(tokens, Full.of(tokens, None, begin))[0, len(before) - 1 : -1]
        return float(logits.log_softmax(-1).gather(-1, torch.tensor(answer)[:, None]).sum())


@pytest.mark.parametrize(("name", "special"), [("chatglm1-6b", (201, 204)), ("glm130b", (221, 224))])
def test_beams_of_a_prefix_language_model(name: str, special: tuple[int, int]) -> None:
    model = load(STORED / name, config=hints(STORED / name)).decoder
    prompt = [*torch.randint(5, 200, (12,)).tolist(), *special]
    found = beam_search(Session(model, CONTEXT), prompt, BeamParams(n=4, max_tokens=10), vocabulary(230))
    assert len({one.ids for one in found}) == 4
    for one in found:
        assert one.logprob == pytest.approx(scored(model, prompt, one.ids), abs=1e-3)


@pytest.mark.parametrize("width", [1, 2, 5])
def test_wide_enough_it_finds_the_likeliest_of_all(pair: Pair, width: int) -> None:
    """Every answer of three tokens out of six, by hand."""
    prompt, allowed = prompts(pair.size)[0], [3, 5, 8, 13, 21, 34]
    scores = {ids: scored(pair.model, prompt, ids) for ids in itertools.product(allowed, repeat=3)}
    got = search(pair, prompt, width=36, n=36, max_tokens=3, allowed_token_ids=allowed, length_penalty=0)
    assert [one.ids for one in got[:width]] == sorted(scores, key=lambda ids: -scores[ids])[:width]
    assert [one.score for one in got] == pytest.approx([scores[one.ids] for one in got], abs=1e-4)


def test_penalties_of_length() -> None:
    assert by_length(4, 0.5) == 2
    assert by_gnmt(7, 2) == 4
    assert [rule(9, 0) for rule in (by_length, by_gnmt)] == [1, 1]


def test_another_penalty_is_what_answers_are_compared_by(pair: Pair) -> None:
    prompt = prompts(pair.size)[0]
    ends = likely(pair, prompt)
    got = search(pair, prompt, ends, n=4, length_penalty=0.6, penalty=by_gnmt)
    scores = [one.logprob / ((5 + len(one.ids)) / 6) ** 0.6 for one in got]
    assert [one.score for one in got] == pytest.approx(scores)
    assert sorted(scores, reverse=True) == pytest.approx(scores)


# A session, and what cannot be.


def test_a_session_stays_usable_and_a_source_is_read_once(pair: Pair) -> None:
    calls: list[int] = []
    reader = pair.model.encoder if isinstance(pair.model, EncoderDecoder) else pair.model
    prompt, session = prompts(pair.size)[0], Session(pair.model, CONTEXT)
    words = vocabulary(pair.size)
    params = BeamParams(max_tokens=6)
    with reader.layers[0].register_forward_pre_hook(lambda _, inputs: calls.append(inputs[0].shape[1])):
        first = beam_search(session, prompt, params, words)
        count = len(calls)
        again = beam_search(session, prompt, params, words)
    assert [one.ids for one in again] == [one.ids for one in first]
    if isinstance(pair.model, EncoderDecoder):
        assert (count, len(calls)) == (1, 1)
    else:
        assert calls == [len(prompt), 1, 1, 1, 1, 1] + [1] * 6
    assert session.ids == list(session.room.begun(prompt))


def test_the_context_ends_a_search(pair: Pair) -> None:
    prompt = prompts(pair.size)[0]
    room = 5
    session = Session(pair.model, room + len(Session(pair.model, CONTEXT).room.begun(prompt)))
    if isinstance(pair.model, EncoderDecoder):
        prompt = prompt[: session.room.context]
    found = beam_search(session, prompt, BeamParams(max_tokens=None), vocabulary(pair.size))
    assert {len(one.ids) for one in found} == {room}
    assert {one.finish_reason for one in found} == {"length"}


def test_logits_that_are_not_finite_are_an_error(pair: Pair) -> None:
    broken = pair.model.head.register_forward_hook(lambda _, __, out: torch.full_like(out, float("nan")))
    with broken, pytest.raises(CheckpointError, match="not finite"):
        search(pair, [5, 6])


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"width": 0}, "width=0"),
        ({"width": 65}, "width=65"),
        ({"width": 2, "n": 3}, "n=3 should be a whole number from 1 to 2"),
        ({"length_penalty": float("nan")}, "length_penalty=nan"),
        ({"early_stopping": "always"}, "early_stopping='always' should be True, False or 'never'"),
        ({"early_stopping": None}, "early_stopping=None"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"ignore_eos": 1}, "ignore_eos=1"),
        ({"stop_token_ids": [-1]}, "stop_token_ids=-1"),
        ({"choice": []}, "choice=\\(\\) leaves nothing"),
        ({"penalty": 0.6}, "penalty=0.6 should be a function"),
    ],
)
def test_values_out_of_bounds_are_refused(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(RequestError, match=named):
        BeamParams(**fields)


def test_ids_outside_the_vocabulary_are_refused(pair: Pair) -> None:
    with pytest.raises(RequestError, match=f"token {pair.size} in stop_token_ids"):
        search(pair, [5], stop_token_ids=[pair.size])


# Rules of the model's files, as transformers' processors have them.


RULES: dict[str, Callable[[list[int]], tuple[Rules, dict[str, Any]]]] = {
    "forced_bos": lambda t: (Rules(first=t[0]), {"forced_bos_token_id": t[0]}),
    "forced_eos": lambda t: (Rules(last=(t[1],)), {"forced_eos_token_id": t[1]}),
    "bad_words": lambda t: (Rules(banned=((t[0],), (t[1], t[2]))), {"bad_words_ids": [[t[0]], [t[1], t[2]]]}),
    "begin_suppress": lambda t: (Rules(banned_first=tuple(t)), {"begin_suppress_tokens": t}),
}


@pytest.mark.parametrize("rule", RULES)
def test_rules_are_transformers(pair: Pair, rule: str) -> None:
    for prompt in prompts(pair.size, 3):
        named = likely(pair, prompt, 3)
        rules, options = RULES[rule](named)
        ends = [named[1]]
        words = vocabulary(pair.size, ends, rules=rules)
        got = beam_search(Session(pair.model, CONTEXT), prompt, BeamParams(n=4, max_tokens=12), words)
        want = theirs(pair, prompt, ends, **options)
        assert_same(got, want)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_repeated_ngrams_are_transformers(pair: Pair, size: int) -> None:
    for prompt in prompts(pair.size, 3):
        got = search(pair, prompt, n=4, no_repeat_ngram_size=size)
        want = theirs(pair, prompt, no_repeat_ngram_size=size)
        assert_same(got, want)


@pytest.mark.parametrize("least", [1, 5, 12])
def test_least_lengths_are_transformers(pair: Pair, least: int) -> None:
    for prompt in prompts(pair.size, 3):
        ends = likely(pair, prompt)
        got = search(pair, prompt, ends, n=4, min_tokens=least)
        assert_same(got, theirs(pair, prompt, ends, min_new_tokens=least))


def test_a_function_of_the_answer_is_transformers(pair: Pair) -> None:
    """prefix_allowed_tokens_fn, which is given what comes before the answer too."""
    for prompt in prompts(pair.size, 3):
        begin = 1 if pair.reference.config.is_encoder_decoder else len(prompt)

        def allowed(answer: Sequence[int]) -> list[int]:
            return [i for i in range(3, pair.size) if (i + len(answer)) % 3]

        got = search(pair, prompt, n=4, constraint=allowed)
        want = theirs(
            pair,
            prompt,
            prefix_allowed_tokens_fn=lambda _, ids, begin=begin: allowed(ids.tolist()[begin:]),
        )
        assert_same(got, want)
