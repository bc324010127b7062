"""Constraints: what they leave, for sampling and for beams, of a decoder and of an encoder-decoder."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers
from torch import Tensor

from bestiary import LLM, BeamParams, RequestError, SamplingParams
from bestiary.run.constrain import (
    Among,
    AtLeast,
    Banned,
    Choices,
    Constraint,
    Every,
    First,
    Follows,
    Last,
    NoRepeat,
)
from bestiary.run.vocabulary import Vocabulary
from bestiary.text.tokenizer import Tokenizer, open_tokenizer

from . import answerer, chatmodel
from .test_beams import scored

SIZE = 6


def languages(constraint: Constraint, length: int) -> set[tuple[int, ...]]:
    """Return every sequence of tokens that a constraint leaves, by asking it step by step."""
    left: list[tuple[tuple[int, ...], Constraint]] = [((), constraint)]
    for _ in range(length):
        after: list[tuple[tuple[int, ...], Constraint]] = []
        for ids, rest in left:
            kept = rest.narrow(torch.zeros(SIZE))
            after += [((*ids, int(i)), rest.after(int(i))) for i in (kept > -math.inf).nonzero()[:, 0]]
        left = after
    return {ids for ids, _ in left}


def inside(part: Sequence[int], whole: Sequence[int]) -> int:
    """How often a sequence is in another."""
    return sum(tuple(whole[i : i + len(part)]) == tuple(part) for i in range(len(whole) - len(part) + 1))


ALL = list(itertools.product(range(SIZE), repeat=4))


@pytest.mark.parametrize(
    ("constraint", "meant"),
    [
        (Every(), lambda ids: True),
        (Among((1, 4)), lambda ids: set(ids) <= {1, 4}),
        (Banned(((2,),)), lambda ids: 2 not in ids),
        (
            Banned(((1, 1), (3, 0, 3), (5,))),
            lambda ids: not any(inside(part, ids) for part in ((1, 1), (3, 0, 3), (5,))),
        ),
        (NoRepeat(1), lambda ids: len(set(ids)) == len(ids)),
        (NoRepeat(2), lambda ids: all(inside(pair, ids) < 2 for pair in itertools.pairwise(ids))),
        (
            NoRepeat(2, (1, 2, 3)),
            lambda ids: all(inside(pair, (1, 2, 3, *ids)) < 2 for pair in itertools.pairwise((3, *ids))),
        ),
        (AtLeast(3, (0, 1)), lambda ids: not {0, 1} & set(ids[:3])),
        (First(2, Banned(((3,),))), lambda ids: ids[0] == 2 and 3 not in ids[1:]),
        (
            Follows(lambda answer: None if len(answer) < 2 else [answer[0]]),
            lambda ids: ids[2] == ids[3] == ids[0],
        ),
        (
            Every((Among((1, 2, 3)), Banned(((1, 2),)), NoRepeat(3))),
            lambda ids: set(ids) <= {1, 2, 3} and not inside((1, 2), ids) and len(set(ids)) > 1,
        ),
    ],
)  # fmt: skip
def test_what_is_left_is_what_is_meant(constraint: Constraint, meant: Any) -> None:
    assert languages(constraint, 4) == {ids for ids in ALL if meant(ids)}


def test_choices_leave_their_sequences_and_an_end() -> None:
    random.seed(0)
    for _ in range(50):
        sequences = {tuple(random.choices(range(4), k=random.randint(1, 3))) for _ in range(5)}
        found = Choices.of(sequences, (4, 5))
        for length in (1, 2, 3):
            whole = {ids[:-1] for ids in languages(found, length + 1) if ids[-1] in (4, 5)}
            assert whole == {ids for ids in sequences if len(ids) == length}


def test_what_is_forced_is_certain() -> None:
    logits = torch.randn(SIZE)
    for forced in (First(3), Last(0, (3,))):
        kept = forced.narrow(logits)
        assert kept.log_softmax(-1)[3] == kept[3] == 0
    assert torch.equal(Last(1, (3,)).narrow(logits), logits)


@pytest.mark.parametrize("ids", [["a"], [1.5], [-1], [True]])
def test_a_function_that_gives_no_ids_is_an_error(ids: Any) -> None:
    with pytest.raises(RequestError, match="which is no token id"):
        Follows(lambda answer: ids).narrow(torch.zeros(SIZE))


# Whole models.


@pytest.fixture(scope="module", params=[chatmodel, answerer], ids=["decoder", "encoder-decoder"])
def llm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    folder: Path = tmp_path_factory.mktemp("constrained")
    request.param.publish(folder)
    with LLM(folder, threads=1) as opened:
        yield opened


CHOICES = ["yes", "yesterday", "no", "ä€", " no", "No.\n"]


def test_an_answer_is_one_of_the_choices(llm: LLM) -> None:
    said = set()
    for seed in range(20):
        params = SamplingParams(temperature=2, seed=seed, choice=CHOICES)
        answer = llm.generate("Well?", params)[0].outputs[0]
        assert answer.text in CHOICES
        assert answer.finish_reason == "stop"
        said.add(answer.text)
    assert len(said) > 2


def test_beams_rank_all_choices(llm: LLM) -> None:
    """By what the model gives each, its end with it."""
    output = llm.beam_search("Well?", BeamParams(width=8, n=8, choice=CHOICES, length_penalty=0))[0]
    # Each choice may end with any of the model's end tokens.
    assert {one.text for one in output.outputs} <= set(CHOICES)
    assert len({tuple(one.token_ids) for one in output.outputs}) == len(output.outputs) >= len(CHOICES)
    for one in output.outputs:
        assert one.score == pytest.approx(
            scored(llm.writer, output.prompt_token_ids, one.token_ids), abs=1e-3
        )


def test_a_choice_as_long_as_the_answer_may_be(llm: LLM) -> None:
    answer = llm.generate("Well?", SamplingParams(temperature=0, choice=["yes"], max_tokens=3))[0].outputs[0]
    assert (answer.text, answer.finish_reason) == ("yes", "length")
    with pytest.raises(RequestError, match="a choice has 3 tokens, and max_tokens and the context leave 2"):
        llm.generate("Well?", SamplingParams(choice=["yes"], max_tokens=2))


def test_bad_words_are_not_said(llm: LLM) -> None:
    letters = [llm.tokenizer.encode(letter)[0] for letter in "abcdefgh"]
    fields: dict[str, Any] = {"temperature": 0, "max_tokens": 30, "allowed_token_ids": letters}
    said = llm.generate("Well?", SamplingParams(**fields))[0].text
    word = said[3:5]
    found = llm.generate("Well?", SamplingParams(**fields, bad_words=[word]))[0].text
    assert word not in found
    at = said.index(word)
    assert found[: at + 1] == said[: at + 1]


def test_only_allowed_tokens(llm: LLM) -> None:
    params = SamplingParams(temperature=2, seed=1, max_tokens=40, allowed_token_ids=[70, 71, 72])
    assert set(llm.generate("a", params)[0].outputs[0].token_ids) == {70, 71, 72}


def test_an_answer_does_not_end_too_soon(llm: LLM) -> None:
    for least in (1, 7):
        params = SamplingParams(temperature=0, min_tokens=least, stop_token_ids=range(200))
        assert len(llm.generate("a", params)[0].outputs[0].token_ids) >= least


def test_logprobs_are_the_models_own(llm: LLM) -> None:
    free = SamplingParams(temperature=0, max_tokens=1, logprobs=3)
    held = SamplingParams(temperature=0, max_tokens=1, logprobs=3, allowed_token_ids=[80])
    one, other = (llm.generate("a", params)[0].outputs[0] for params in (free, held))
    assert one.logprobs is not None
    assert other.logprobs is not None
    assert other.token_ids == [80] != one.token_ids
    assert {i: other.logprobs[0][i] for i in one.logprobs[0]} == one.logprobs[0]
    assert other.logprobs[0][80].logprob < -1e-3


class Digits:
    """A grammar of one's own, with its state: digits, and an end once they sum to a multiple of three."""

    def __init__(self, ids: dict[int, int], end: int, total: int = 0, count: int = 0) -> None:
        self.ids, self.end, self.total, self.count = ids, end, total, count

    def narrow(self, logits: Tensor) -> Tensor:
        allowed = [*self.ids, *([self.end] if self.count and self.total % 3 == 0 else [])]
        mask = torch.ones_like(logits, dtype=torch.bool)
        mask[allowed] = False
        return logits.masked_fill(mask, -math.inf)

    def after(self, token: int) -> Digits:
        return Digits(self.ids, self.end, self.total + self.ids.get(token, 0), self.count + 1)


def test_a_grammar_of_ones_own(llm: LLM) -> None:
    ids = {llm.tokenizer.encode(str(i))[0]: i for i in range(1, 10)}
    assert llm.tokenizer.eos is not None
    grammar = Digits(ids, llm.tokenizer.eos)
    params = SamplingParams(n=16, seed=0, max_tokens=60, constraint=grammar)
    texts = [one.text for one in llm.generate("a", params)[0].outputs if one.finish_reason == "stop"]
    beams = llm.beam_search("a", BeamParams(width=8, n=8, max_tokens=12, constraint=grammar))[0].outputs
    texts += [one.text for one in beams if one.finish_reason == "stop"]
    assert len(texts) > 8
    assert all(text.isdigit() and int(text) % 3 == 0 for text in texts)


@pytest.mark.parametrize(
    "fields",
    [
        {"constraint": lambda answer: []},
        {"constraint": lambda answer: None if len(answer) < 2 else []},
        {"constraint": lambda answer: [10**9]},
        {"allowed_token_ids": [70], "constraint": lambda answer: [71]},
    ],
)
def test_what_cannot_go_on_is_an_error(llm: LLM, fields: dict[str, Any]) -> None:
    for ask in (
        lambda: llm.generate("a", SamplingParams(temperature=0, max_tokens=5, **fields)),
        lambda: llm.generate("a", SamplingParams(temperature=1, top_k=5, max_tokens=5, **fields)),
        lambda: llm.beam_search("a", BeamParams(width=2, max_tokens=5, **fields)),
    ):
        with pytest.raises(RequestError, match="leave no token that may come next"):
            ask()


def test_a_choice_needs_an_end_and_ids_are_the_models(llm: LLM) -> None:
    with pytest.raises(RequestError, match="choice needs a token that ends the answer"):
        llm.generate("a", SamplingParams(choice=["b"], ignore_eos=True))
    with pytest.raises(RequestError, match="token 99999 in allowed_token_ids"):
        llm.generate("a", SamplingParams(allowed_token_ids=[99999]))


# Spellings.


@pytest.fixture(scope="module")
def metaspace(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A tokenizer that puts a space in front of a text, as Llama's and T5's do."""
    pieces = ["<unk>", "</s>", "\u2581", "\u2581yes", "yes", "\n", "no", "y", "e", "s"]
    made = tokenizers.Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=0))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.add_special_tokens(["</s>"])
    file = tmp_path_factory.mktemp("metaspace") / "tokenizer.json"
    made.save(str(file))
    return open_tokenizer(file.parent)


@pytest.mark.parametrize("continues", [True, False])
def test_a_choice_is_spelled_for_where_it_stands(metaspace: Tokenizer, *, continues: bool) -> None:
    """Behind a prompt "yes" has no space in front, and at an answer's start its space is not shown."""
    stream = partial(metaspace.stream, continues=continues)
    words = Vocabulary(metaspace.vocab_size, frozenset([1]), stream, metaspace.encode)
    said = {True: {"yes": [4], " yes": [3]}, False: {"yes": [3]}}[continues]
    for text, ids in said.items():
        assert words.spelled(text) == ids
        assert words.text(ids) == text
    with pytest.raises(RequestError, match="'maybe' cannot be an answer"):
        words.spelled("maybe")


# The default model, a real one.


@pytest.fixture(scope="module")
def smollm(default_model: Path) -> Iterator[LLM]:
    with LLM(default_model, threads=1) as opened:
        yield opened


def ask(llm: LLM, question: str, params: SamplingParams) -> str:
    return llm.chat([{"role": "user", "content": question}], params)[0].text


def test_a_real_model_chooses(smollm: LLM) -> None:
    choose = SamplingParams(temperature=0, choice=["positive", "negative"])
    question = "Is this review positive or negative? "
    assert ask(smollm, f"{question}I loved every minute of it!", choose) == "positive"
    assert ask(smollm, f"{question}The worst film I ever saw.", choose) == "negative"
    cities = SamplingParams(temperature=0, choice=["London", "Paris", "Paraguay", "Rome"])
    assert ask(smollm, "What is the capital of France?", cities) == "Paris"


def test_a_real_model_does_not_say_bad_words(smollm: LLM) -> None:
    fields: dict[str, Any] = {"temperature": 0, "max_tokens": 16}
    question = "What is the capital of France?"
    assert "Paris" in ask(smollm, question, SamplingParams(**fields))
    assert "Paris" not in ask(smollm, question, SamplingParams(**fields, bad_words=["Paris"]))


def test_a_real_model_goes_on_by_beams(smollm: LLM) -> None:
    begin = "The capital of France is"
    found = smollm.beam_search(begin, BeamParams(width=4, n=4, max_tokens=6))[0].outputs
    greedy = smollm.generate(begin, SamplingParams(temperature=0, max_tokens=6, logprobs=0))[0].outputs[0]
    assert greedy.logprobs is not None
    own = sum(entry[i].logprob for entry, i in zip(greedy.logprobs, greedy.token_ids, strict=True))
    assert " Paris" in found[0].text
    assert found[0].logprob > own + 0.1  # as a whole it is likelier
    assert len({one.text for one in found}) == 4
