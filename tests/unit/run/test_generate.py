"""The loop against transformers' generate, token for token, and against whole-sequence forwards."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from bestiary.errors import CheckpointError, RequestError
from bestiary.run import sample
from bestiary.run import session as module
from bestiary.run.generate import Chunk, generate
from bestiary.run.params import SamplingParams
from bestiary.run.sample import History
from bestiary.run.session import Session

from .conftest import CONTEXT, PIECES, SIZE, Pair, text_of, vocabulary
from .test_stops import brute

PROMPT = [5, 17, 99, 3, 64, 64, 12, 80, 1, 42]


def run(session: Session, prompt: list[int] = PROMPT, **fields: Any) -> list[Chunk]:
    """Greedy unless told otherwise."""
    params = SamplingParams(**{"temperature": 0, "max_tokens": 40, **fields})
    return list(generate(session, prompt, params, vocabulary()))


def ids_of(chunks: list[Chunk]) -> list[int]:
    return [i for chunk in chunks for i in chunk.ids]


@pytest.fixture
def forwards(pair: Pair) -> Iterator[list[int]]:
    """How many tokens each forward of the model had."""
    counts: list[int] = []
    with pair.model.embed.register_forward_pre_hook(lambda _, inputs: counts.append(inputs[0].numel())):
        yield counts


def shown(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def theirs(pair: Pair, prompt: list[int], **options: Any) -> list[int]:
    """What transformers' generate appends."""
    tokens = torch.tensor([prompt])
    # Its dynamic positions remember the longest sequence so far, until a short one comes.
    pair.reference(tokens[:, :1])
    out = pair.reference.generate(
        tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=40, **options
    )
    return [int(i) for i in out[0, len(prompt) :]]


# Against transformers.


@pytest.mark.parametrize("pair", ["llama", "llama-mqa-tied", "llama-yarn", "mistral"], indirect=True)
@pytest.mark.parametrize("cached", [True, False])
def test_greedy_is_transformers_greedy(pair: Pair, session: Session, *, cached: bool) -> None:
    wanted = theirs(pair, PROMPT, use_cache=cached)
    assert len(set(wanted)) > 3  # not one token over and over
    assert ids_of(run(session)) == wanted


@pytest.mark.parametrize("pair", ["llama-dynamic"], indirect=True)
def test_greedy_past_the_trained_length(pair: Pair, session: Session) -> None:
    """Keys in a cache keep the positions of their own step, in both: without a cache it would differ."""
    wanted = theirs(pair, PROMPT)
    assert wanted != theirs(pair, PROMPT, use_cache=False)
    assert ids_of(run(session)) == wanted


@pytest.mark.parametrize("penalty", [0.7, 1.05, 1.5])
def test_repetition_penalty_is_transformers(pair: Pair, session: Session, penalty: float) -> None:
    wanted = theirs(pair, PROMPT, repetition_penalty=penalty)
    assert wanted != theirs(pair, PROMPT)
    assert ids_of(run(session, repetition_penalty=penalty)) == wanted


def test_sampling_is_that_of_whole_forwards(pair: Pair, session: Session) -> None:
    """No cache, transformers' model, the filters that were compared one by one: the same tokens."""
    fields: dict[str, Any] = {
        "temperature": 0.9,
        "top_k": 60,
        "top_p": 0.95,
        "frequency_penalty": 0.5,
        "seed": 11,
    }
    params, answer = SamplingParams(**fields), list[int]()
    history = History.of(torch.tensor(PROMPT), SIZE)
    for step in range(40):
        with torch.no_grad():
            logits = pair.reference(torch.tensor([PROMPT + answer])).logits[0, -1]
        filtered = sample.keep(sample.penalise(logits, params, history), params)
        point = torch.tensor(sample.uniform(11, 0, step), dtype=torch.float64)
        answer.append(int(sample.draw(filtered, point)))
        history.add(answer[-1])
    assert ids_of(run(session, **fields)) == answer


def test_logprobs_are_the_models_own(pair: Pair, session: Session) -> None:
    chunks = run(session, logprobs=3, temperature=1.5, top_k=5, logit_bias={7: 50}, max_tokens=10, seed=1)
    with torch.no_grad():
        logits = pair.reference(torch.tensor([PROMPT + ids_of(chunks)])).logits[0, len(PROMPT) - 1 : -1]
    for row, chunk in zip(logits.log_softmax(-1), chunks, strict=True):
        assert chunk.logprobs is not None
        assert set(row.topk(3).indices.tolist()) | set(chunk.ids) == set(chunk.logprobs)
        for token, entry in chunk.logprobs.items():
            assert entry.logprob == pytest.approx(row[token].item(), abs=1e-4)
            assert entry.rank == int((row > row[token]).sum()) + 1


# Chunks of prefill, room in the cache.


@pytest.mark.parametrize("pair", ["llama", "llama-dynamic", "mistral"], indirect=True)
@pytest.mark.parametrize("chunk", [1, 3, 20, 21])
def test_chunks_of_a_prompt_change_nothing(
    pair: Pair, session: Session, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor where positions depend on the length of the whole prompt (dynamic: beyond 16 tokens)."""
    monkeypatch.setattr(module, "CHUNK", chunk)
    prompt = PROMPT + PROMPT[::-1]
    assert ids_of(run(session, prompt)) == theirs(pair, prompt)


def test_the_cache_grows_with_the_tokens(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROOM", 4)
    session = Session(pair.model, 8192)
    sizes = []
    for chunk in generate(session, PROMPT, SamplingParams(temperature=0, max_tokens=40), vocabulary()):
        assert session._cache is not None
        sizes.append((chunk.ids[0], session._cache.capacity))
    assert [i for i, _ in sizes] == theirs(pair, PROMPT)
    assert sorted({capacity for _, capacity in sizes}) == [12, 20, 32, 48, 72]


def test_a_short_chat_needs_little_of_a_long_context(pair: Pair) -> None:
    session = Session(pair.model, 8192)
    run(session, max_tokens=20)
    assert session._cache is not None
    assert session._cache.capacity == module.ROOM


# Seeds and several answers.


def test_the_same_seed_gives_the_same_answer(pair: Pair) -> None:
    answers = [ids_of(run(Session(pair.model, CONTEXT), temperature=1, seed=seed)) for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]


def test_no_seed_gives_another_answer_each_time(pair: Pair) -> None:
    answers = {tuple(ids_of(run(Session(pair.model, CONTEXT), temperature=2))) for _ in range(4)}
    assert len(answers) == 4


def test_the_first_of_n_answers_is_the_only_one_of_one(
    pair: Pair, session: Session, forwards: list[int]
) -> None:
    alone = run(Session(pair.model, CONTEXT), temperature=1, seed=3, presence_penalty=1, logprobs=1)
    forwards.clear()
    several = run(session, temperature=1, seed=3, presence_penalty=1, logprobs=1, n=3)
    assert [chunk for chunk in several if chunk.index == 0] == alone
    assert len({tuple(ids_of([c for c in several if c.index == i])) for i in range(3)}) == 3
    # The prompt once; of each answer every token but the last.
    assert sum(forwards) == len(PROMPT) + 3 * 39


# Text and why it ends.


def test_pieces_join_to_the_text(session: Session) -> None:
    for seed in range(5):
        chunks = run(session, temperature=2, seed=seed, max_tokens=50)
        assert shown(chunks) == text_of(ids_of(chunks))


def test_stop_strings_cut_where_a_search_of_the_whole_text_would(session: Session) -> None:
    hits = 0
    for seed in range(10):
        whole = text_of(ids_of(run(session, temperature=2, seed=seed)))
        for stop in (
            ["ab"],
            ["bb", "b a"],
            [whole[9:13]],
            ["ä"],
            ["end", "\ufffd"],
            ["no such thing"],
            [whole[-1]],
        ):
            chunks = run(session, temperature=2, seed=seed, stop=stop)
            assert shown(chunks) == brute(whole, stop)
            found = any(one in whole for one in stop)
            assert chunks[-1].finish_reason == ("stop" if found else "length")
            assert all(chunk.finish_reason is None for chunk in chunks[:-1])
            hits += found
    assert hits > 20


def test_an_end_token_ends_and_is_no_text(session: Session) -> None:
    free = ids_of(run(session))
    end = free[5]
    at = free.index(end)
    for ends, fields in ((frozenset([end]), {}), (frozenset[int](), {"stop_token_ids": [end]})):
        params = SamplingParams(temperature=0, max_tokens=40, **fields)  # type: ignore[arg-type]
        chunks = list(generate(session, PROMPT, params, vocabulary(ends=ends)))
        assert ids_of(chunks) == free[: at + 1]
        assert shown(chunks) == text_of(free[:at])
        assert chunks[-1].finish_reason == "stop"


def test_ignore_eos_goes_on_but_not_past_stop_token_ids(session: Session) -> None:
    free = ids_of(run(session))
    ends = vocabulary(ends=frozenset([free[0]]))
    params = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
    assert ids_of(list(generate(session, PROMPT, params, ends))) == free
    params = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True, stop_token_ids=[free[0]])
    assert ids_of(list(generate(session, PROMPT, params, ends))) == free[:1]


@pytest.mark.parametrize("most", [1, 7, None, 2**63 - 1])
def test_length_is_max_tokens_or_the_rest_of_the_context(session: Session, most: int | None) -> None:
    chunks = run(session, max_tokens=most)
    assert len(chunks) == min(most or CONTEXT, CONTEXT - len(PROMPT))
    assert chunks[-1].finish_reason == "length"


def test_the_longest_prompt_leaves_room_for_one_token(session: Session) -> None:
    prompt = [i % SIZE for i in range(CONTEXT - 1)]
    assert len(run(session, prompt)) == 1
    with pytest.raises(RequestError, match=f"{CONTEXT} tokens, and the context of {CONTEXT}"):
        generate(session, [*prompt, 1], SamplingParams(), vocabulary())  # at the call, not at the first token


@pytest.mark.parametrize(
    ("prompt", "fields", "named"),
    [
        ([], {}, "prompt is empty"),
        ([1, SIZE], {}, f"token {SIZE} in the prompt"),
        ([-1], {}, "token -1 in the prompt"),
        ([1.5], {}, "token 1.5 in the prompt"),
        ([1], {"stop_token_ids": [SIZE]}, f"token {SIZE} in stop_token_ids"),
        ([1], {"logit_bias": {SIZE: 1}}, f"token {SIZE} in logit_bias"),
        ([1], {"logit_bias": {2**62: 1}}, "in logit_bias"),
    ],
)
def test_what_cannot_be_run_is_refused_at_the_call(
    session: Session, prompt: Any, fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(RequestError, match=named):
        generate(session, prompt, SamplingParams(**fields), vocabulary())


def test_ids_without_a_text_are_never_chosen(session: Session) -> None:
    size = 20
    params = SamplingParams(temperature=2, seed=0, max_tokens=50)
    chunks = list(generate(session, PROMPT[3:4], params, vocabulary(size)))
    assert len(chunks) == 50
    assert set(ids_of(chunks)) <= set(range(size))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0, 1])
def test_logits_that_are_not_finite_are_an_error(
    pair: Pair, session: Session, value: float, temperature: float
) -> None:
    broken = pair.model.head.register_forward_hook(lambda *_: torch.full((1, SIZE), value))
    with broken, pytest.raises(CheckpointError, match="not finite"):
        run(session, temperature=temperature)


# Interrupts.


def test_an_interrupt_gives_what_there_is_and_then_rises(pair: Pair, session: Session) -> None:
    free = run(session)
    whole = text_of(ids_of(free[:7]))
    calls = 0

    def interrupt(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 7:  # while the eighth token is computed: the first came with the prompt
            signal.raise_signal(signal.SIGINT)

    # Text that may be a stop string is held back at that moment.
    stop = whole[-1] + "\0"
    again = Session(pair.model, CONTEXT)
    params = SamplingParams(temperature=0, max_tokens=40, stop=stop)
    chunks = generate(again, PROMPT, params, vocabulary())
    seen = [next(chunks)]
    with pair.model.layers[1].register_forward_pre_hook(interrupt):
        seen += [next(chunks) for _ in range(7)]
        with pytest.raises(KeyboardInterrupt):
            next(chunks)
    assert seen[-1] == Chunk(whole[-1], (), "abort")
    assert ids_of(seen) == ids_of(free[:7])
    assert shown(seen) == whole
    assert list(chunks) == []
    # The session is as it was before the token that was cut off.
    assert again.ids == PROMPT + ids_of(free[:6])
    assert run(again) == free


def test_an_interrupt_of_the_prefill_rises_at_once(pair: Pair, session: Session) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pair.model.layers[2].register_forward_pre_hook(interrupt), pytest.raises(KeyboardInterrupt):
        run(session)
    assert session.ids == []
    assert ids_of(run(session)) == theirs(pair, PROMPT)


def test_an_answer_can_be_left(pair: Pair, session: Session) -> None:
    chunks = generate(session, PROMPT, SamplingParams(temperature=0), vocabulary())
    next(chunks)
    next(chunks)
    del chunks
    assert ids_of(run(session)) == theirs(pair, PROMPT)


# Turns of a conversation.


def test_the_next_turn_computes_only_what_is_new(pair: Pair, session: Session, forwards: list[int]) -> None:
    first = ids_of(run(session, max_tokens=10))
    turn = PROMPT + first + [9, 8, 7]
    forwards.clear()
    second = ids_of(run(session, turn, max_tokens=10))
    assert forwards[0] == 4  # the answer's last token was never fed; and three new ones
    assert second == ids_of(run(Session(pair.model, CONTEXT), turn, max_tokens=10))
    assert second == theirs(pair, turn)[:10]


def test_a_prompt_that_differs_is_computed_from_there(
    pair: Pair, session: Session, forwards: list[int]
) -> None:
    run(session)
    forwards.clear()
    other = [*PROMPT[:6], 100, 101]
    assert ids_of(run(session, other)) == theirs(pair, other)
    assert forwards[0] == 2


def test_the_same_prompt_again_computes_one_token(session: Session, forwards: list[int]) -> None:
    before = run(session)
    forwards.clear()
    assert run(session) == before
    assert forwards[0] == 1


def test_a_session_refuses_what_does_not_fit(session: Session) -> None:
    with pytest.raises(RequestError, match=f"{CONTEXT + 1} tokens do not fit the context of {CONTEXT}"):
        session.feed([1] * (CONTEXT + 1))


def test_pieces_cover_the_vocabulary() -> None:
    assert len(PIECES) == SIZE
