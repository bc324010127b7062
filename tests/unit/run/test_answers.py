"""Encoder-decoders: a source is read once, answered by the same sampler, and refused where it cannot be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers.models.t5.modeling_t5 import T5ForConditionalGeneration

from bestiary import LLM, BeamParams, ConfigError, RequestError, SamplingParams
from bestiary.load import load
from bestiary.models import EncoderDecoder
from tests import tiny

from .answerer import CONTEXT, publish

GREEDY = SamplingParams(temperature=0, max_tokens=12)
SOURCES = ["Translate this.", "äöü", "x"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny-t5")
    publish(path)
    return path


@pytest.fixture(scope="module")
def llm(place: Path) -> Iterator[LLM]:
    with LLM(place, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def reference(place: Path) -> Any:
    return T5ForConditionalGeneration.from_pretrained(place)


@pytest.fixture(scope="module")
def hf_tokenizer(place: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(place)


PADDING = list(range(259, 272))


def theirs(reference: Any, ids: list[int], **options: Any) -> list[int]:
    """Transformers' answer, without its start and without the padding rows of the vocabulary."""
    tokens = torch.tensor([ids])
    given = {"max_new_tokens": 12, "do_sample": False, "suppress_tokens": PADDING, **options}
    out = reference.generate(tokens, attention_mask=torch.ones_like(tokens), **given)
    return [int(i) for i in out[0, 1:]]


def test_answers_are_transformers(llm: LLM, reference: Any, hf_tokenizer: Any) -> None:
    outputs = llm.generate(SOURCES, GREEDY)
    for source, output in zip(SOURCES, outputs, strict=True):
        ids = hf_tokenizer(source)["input_ids"]
        assert ids[-1] == 1
        assert (output.prompt, output.prompt_token_ids) == (source, ids)
        wanted = theirs(reference, ids)
        assert output.outputs[0].token_ids == wanted
        assert output.text == hf_tokenizer.decode(wanted, skip_special_tokens=True)
    assert len({tuple(output.outputs[0].token_ids) for output in outputs}) == len(SOURCES)
    again = llm.generate(outputs[0].prompt_token_ids, GREEDY)[0]
    assert again.outputs == outputs[0].outputs


@pytest.mark.parametrize("penalty", [0.7, 1.3, 2.0])
def test_penalties_look_back_on_the_answer_alone(llm: LLM, reference: Any, penalty: float) -> None:
    """And on what it begins with; not on the source."""
    differs = 0
    for source in SOURCES:
        ids = llm.generate(source, GREEDY)[0].prompt_token_ids
        params = SamplingParams(temperature=0, max_tokens=12, repetition_penalty=penalty)
        wanted = theirs(reference, ids, repetition_penalty=penalty)
        assert llm.generate(source, params)[0].outputs[0].token_ids == wanted
        differs += wanted != theirs(reference, ids)
    assert differs


def test_beams_are_transformers(llm: LLM, reference: Any, hf_tokenizer: Any) -> None:
    for output in llm.beam_search(SOURCES, BeamParams(width=3, n=3, max_tokens=12)):
        wanted = theirs(reference, output.prompt_token_ids, num_beams=3)
        assert output.outputs[0].token_ids == wanted
        assert output.text == hf_tokenizer.decode(wanted, skip_special_tokens=True)
        assert [one.index for one in output.outputs] == [0, 1, 2]
        assert sorted((one.score for one in output.outputs), reverse=True) == [
            one.score for one in output.outputs
        ]


def test_beams_check_every_prompt_before_the_first_is_searched(llm: LLM) -> None:
    asked: list[Sequence[int]] = []

    def watch(answer: Sequence[int]) -> None:
        asked.append(answer)

    with pytest.raises(RequestError, match="the source has 101 tokens"):
        llm.beam_search([SOURCES[0], "a" * 100], BeamParams(constraint=watch))
    assert asked == []


def test_a_stream_joins_to_the_answer(llm: LLM) -> None:
    params = SamplingParams(temperature=1, seed=5, max_tokens=20, logprobs=2)
    answer = llm.generate("Once", params)[0].outputs[0]
    chunks = list(llm.stream("Once", params))
    assert "".join(chunk.text for chunk in chunks) == answer.text
    assert [chunk.logprobs for chunk in chunks] == answer.logprobs


def test_a_source_is_encoded_once(llm: LLM) -> None:
    session, read, written = llm.session(), list[int](), list[int]()
    model = llm.model
    assert isinstance(model, EncoderDecoder)
    several = SamplingParams(temperature=1, seed=1, n=3, max_tokens=4, ignore_eos=True)
    with (
        model.encoder.layers[0].register_forward_pre_hook(lambda _, x: read.append(x[0].shape[1])),
        model.decoder.layers[0].register_forward_pre_hook(lambda _, x: written.append(x[0].shape[1])),
    ):
        first = list(llm.stream("One source", several, session=session))
        assert (read, sum(written)) == ([11], 1 + 3 * 3)
        assert list(llm.stream("One source", several, session=session)) == first
        assert (read, sum(written)) == ([11], 2 * (1 + 3 * 3))
        other = list(llm.stream("Another", several, session=session))
        assert read == [11, 8]
    assert other == list(llm.stream("Another", several))


def test_an_interrupt_of_the_encoder_leaves_the_session_as_it_was(llm: LLM) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    session, model = llm.session(), llm.model
    assert isinstance(model, EncoderDecoder)
    first = list(llm.stream("One", GREEDY, session=session))
    with model.encoder.layers[1].register_forward_pre_hook(interrupt), pytest.raises(KeyboardInterrupt):
        list(llm.stream("Two", GREEDY, session=session))
    assert list(llm.stream("One", GREEDY, session=session)) == first
    assert list(llm.stream("Two", GREEDY, session=session)) == list(llm.stream("Two", GREEDY))


def test_source_and_answer_each_have_the_context(llm: LLM) -> None:
    free = SamplingParams(temperature=0, max_tokens=None, ignore_eos=True)
    longest = "x" * (CONTEXT - 1)  # and its end
    assert len(llm.generate(longest, free)[0].outputs[0].token_ids) == CONTEXT - 1  # behind its start
    with pytest.raises(RequestError, match=f"source has {CONTEXT + 1} tokens, and the encoder's context is"):
        llm.generate(longest + "x", free)
    with pytest.raises(RequestError, match="prompt is empty"):
        llm.stream([], free)


def test_a_context_without_room_for_an_answer_is_refused(place: Path) -> None:
    small = LLM(place, context=1, threads=1)
    with pytest.raises(RequestError, match="decoder's context of 1 must hold the 1 token"):
        small.generate([1])


def test_there_is_no_chat(llm: LLM) -> None:
    with pytest.raises(RequestError, match="has no chat template"):
        llm.chat([{"role": "user", "content": "Hello"}])


def test_an_encoder_says_what_it_can_do(place: Path, tmp_path: Path) -> None:
    tiny.make("bert", tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(place / name, tmp_path / name)
    with LLM(tmp_path, threads=1) as encoder:
        for ask in (encoder.generate, encoder.beam_search, encoder.stream):
            with pytest.raises(RequestError, match="is an encoder"):
                ask("Hello")


# What the files say of every answer.


@pytest.fixture
def said(place: Path, tmp_path: Path) -> Any:
    """Open the model with what is written into its generation_config.json, or config.json, here and there."""

    def open_with(keys: dict[str, object], name: str = "generation_config.json") -> tuple[LLM, Any]:
        shutil.copytree(place, tmp_path, dirs_exist_ok=True)
        if name == "config.json":
            (tmp_path / "generation_config.json").unlink()
        file = tmp_path / name
        file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))
        return LLM(tmp_path, threads=1), T5ForConditionalGeneration.from_pretrained(tmp_path)

    return open_with


RULES: dict[str, dict[str, object]] = {
    "first": {"forced_bos_token_id": 77},
    "last": {"forced_eos_token_id": 1},
    "bad words": {"bad_words_ids": [[0], [2], [100], [101]]},
    "suppressed": {"suppress_tokens": [*range(3, 259, 2), *PADDING]},
    "suppressed at first": {"begin_suppress_tokens": list(range(3, 259, 2))},
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
def test_published_rules_hold_for_every_answer(llm: LLM, said: Any, rule: str, name: str) -> None:
    opened, reference = said(RULES[rule], name)
    suppressed = {} if rule == "suppressed" else {"suppress_tokens": PADDING}
    with opened:
        for source in SOURCES:
            output = opened.generate(source, GREEDY)[0]
            tokens = torch.tensor([output.prompt_token_ids])
            options = {"max_new_tokens": 12, "do_sample": False, **suppressed}
            beam = opened.beam_search(source, BeamParams(width=3, max_tokens=12))[0]
            for beams, got in ((1, output.outputs[0]), (3, beam.outputs[0])):
                want = reference.generate(tokens, num_beams=beams, **options)
                assert got.token_ids == [int(i) for i in want[0, 1:]]


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"forced_decoder_ids": [[1, 5]]}, "forced_decoder_ids = .* is not computed here"),
        ({"encoder_no_repeat_ngram_size": 3}, "encoder_no_repeat_ngram_size = 3"),
        ({"forced_bos_token_id": "x"}, "forced_bos_token_id = 'x' should be a token id"),
    ],
)
def test_rules_that_are_not_computed_are_refused(place: Path, tmp_path: Path, keys: Any, named: str) -> None:
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    (tmp_path / "generation_config.json").write_text(json.dumps(keys))
    with pytest.raises(ConfigError, match=named):
        LLM(tmp_path, threads=1)


def test_the_model_is_what_load_gives(llm: LLM, place: Path) -> None:
    assert type(llm.model) is type(load(place).model) is EncoderDecoder
