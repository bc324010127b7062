"""LLM over a whole tiny model folder, weights, tokenizer and template, as somebody publishes one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from bestiary import LLM, CheckpointError, RequestError, RequestOutput, SamplingParams, TemplateError

from .chatmodel import CHATML, CONTEXT

GREEDY = SamplingParams(temperature=0, max_tokens=12)
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    with LLM(folder, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture(scope="module")
def hf_tokenizer(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder)


def theirs(reference: Any, ids: list[int], count: int = 12) -> list[int]:
    """Transformers' greedy continuation, without the padding rows of the vocabulary."""
    tokens = torch.tensor([ids])
    out = reference.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        do_sample=False,
        max_new_tokens=count,
        eos_token_id=[257, 258],
        pad_token_id=258,
        suppress_tokens=list(range(259, 272)),
    )
    return [int(i) for i in out[0, len(ids) :]]


def test_generate_is_transformers(llm: LLM, reference: Any, hf_tokenizer: Any) -> None:
    prompts = ["Once upon a time", "ä€", "x"]
    outputs = llm.generate(prompts, GREEDY)
    assert [output.prompt for output in outputs] == prompts
    for prompt, output in zip(prompts, outputs, strict=True):
        ids = hf_tokenizer.encode(prompt)
        wanted = theirs(reference, ids)
        assert output.prompt_token_ids == ids
        assert output.outputs[0].token_ids == wanted
        assert output.text == hf_tokenizer.decode(wanted, skip_special_tokens=True)


def test_chat_is_transformers_template(llm: LLM, reference: Any, hf_tokenizer: Any) -> None:
    messages = [{"role": "system", "content": "Be brief."}, *HELLO]
    ids = hf_tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    (output,) = llm.chat(messages, GREEDY)
    assert output.prompt_token_ids == ids
    assert output.prompt == hf_tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=False
    )
    assert output.outputs[0].token_ids == theirs(reference, ids)


def test_one_prompt_or_conversation_is_a_list_of_one(llm: LLM) -> None:
    assert llm.generate("Once", GREEDY) == llm.generate(["Once"], GREEDY)
    ids = llm.tokenizer.encode("Once")
    assert llm.generate(ids, GREEDY)[0].outputs == llm.generate("Once", GREEDY)[0].outputs
    mixed: list[str | list[int]] = [ids, "Once"]
    assert [output.prompt for output in llm.generate(mixed, GREEDY)] == [None, "Once"]
    assert llm.chat(HELLO, GREEDY) == llm.chat([HELLO], GREEDY)
    assert len(llm.chat([HELLO, HELLO], GREEDY)) == 2
    assert llm.generate([], GREEDY) == []


def test_text_is_no_control_token_and_ids_are(llm: LLM) -> None:
    as_text = llm.generate("a<|im_end|>", GREEDY)[0].prompt_token_ids
    assert 257 not in as_text
    assert (
        llm.generate(llm.tokenizer.encode("a<|im_end|>", control=True), GREEDY)[0].prompt_token_ids[-1] == 257
    )


def test_a_stream_joins_to_the_answer(llm: LLM) -> None:
    for request in ("Once", llm.tokenizer.encode("Once"), HELLO):
        params = SamplingParams(temperature=1, seed=5, max_tokens=40, logprobs=2)
        whole = llm.chat(request, params) if request is HELLO else llm.generate(request, params)  # type: ignore[arg-type]
        answer = whole[0].outputs[0]
        chunks = list(llm.stream(request, params))
        assert "".join(chunk.text for chunk in chunks) == answer.text
        assert [i for chunk in chunks for i in chunk.ids] == answer.token_ids
        assert chunks[-1].finish_reason == answer.finish_reason
        assert [chunk.logprobs for chunk in chunks] == answer.logprobs


def test_several_answers(llm: LLM) -> None:
    params = SamplingParams(temperature=1.5, seed=1, n=3, max_tokens=20)
    (output,) = llm.generate("Once", params)
    assert [answer.index for answer in output.outputs] == [0, 1, 2]
    assert len({answer.text for answer in output.outputs}) == 3
    assert output.text == output.outputs[0].text
    assert [answer.logprobs for answer in output.outputs] == [None] * 3


@pytest.mark.parametrize("end", [257, 258])
def test_every_named_end_token_ends(llm: LLM, end: int) -> None:
    """257 is the tokenizer's EOS, 258 is in generation_config.json alone."""
    for ask in (lambda p: llm.generate("a", p), lambda p: llm.chat(HELLO, p)):
        answer = ask(SamplingParams(temperature=0, logit_bias={end: 100})).pop().outputs[0]
        assert (answer.token_ids, answer.text, answer.finish_reason) == ([end], "", "stop")


def test_a_session_computes_a_turn_once(llm: LLM) -> None:
    session, counts = llm.session(), list[int]()
    turns = list(HELLO)
    with llm.model.get_submodule("embed").register_forward_pre_hook(
        lambda _, inputs: counts.append(inputs[0].numel())
    ):
        for text in ("And?", "Why?"):
            answer = llm.chat(turns, GREEDY, session=session)[0]
            turns += [{"role": "assistant", "content": answer.text}, {"role": "user", "content": text}]
        before = len(session.ids)
        counts.clear()
        last = llm.chat(turns, GREEDY, session=session)[0]
    assert (
        0 < counts[0] < len(last.prompt_token_ids) - before + 13
    )  # the answer's text may be spelt by other tokens
    assert last.outputs == llm.chat(turns, GREEDY)[0].outputs


def test_a_session_is_of_one_conversation_of_one_model(llm: LLM, folder: Path) -> None:
    with pytest.raises(RequestError, match="one conversation; 2 were given"):
        llm.chat([HELLO, HELLO], session=llm.session())
    with LLM(folder) as other, pytest.raises(RequestError, match="another model"):
        llm.chat(HELLO, session=other.session())


def test_bad_requests_are_refused_at_the_call(llm: LLM) -> None:
    long = "x" * CONTEXT
    for ask in (
        lambda: llm.generate(["fine", long]),
        lambda: llm.stream(long),
        lambda: llm.chat([{"role": "user", "content": long}]),
    ):
        with pytest.raises(RequestError, match=rf"prompt has \d+ tokens, and the context of {CONTEXT}"):
            ask()
    with pytest.raises(RequestError, match="prompt is empty"):
        llm.generate("")
    with pytest.raises(RequestError, match="token 270 in the prompt"):
        llm.generate([1, 270])  # a padding row
    with pytest.raises(RequestError, match="messages"):
        llm.chat([])


def test_context_bounds_prompt_and_answer(folder: Path) -> None:
    with LLM(folder, context=20) as llm:
        (output,) = llm.generate("x" * 15, SamplingParams(max_tokens=None, ignore_eos=True))
        assert len(output.outputs[0].token_ids) == 5
        assert output.outputs[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"context": 0}, "context=0"),
        ({"context": CONTEXT + 1}, f"context={CONTEXT + 1} .* to {CONTEXT}"),
        ({"context": True}, "context=True"),
        ({"context": 8.0}, "context=8.0"),
        ({"threads": 0}, "threads=0"),
        ({"device": "abacus"}, "device='abacus'"),
        ({"dtype": "float12"}, "float12"),
    ],
)
def test_arguments_are_checked(folder: Path, arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(RequestError, match=named):
        LLM(folder, **arguments)


def test_a_missing_gpu_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RequestError, match="no CUDA GPU"):
        LLM(folder, device="cuda:0")


def test_progress_reaches_the_end(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    with LLM(folder, progress=lambda done, total: seen.append((done, total))):
        assert seen[-1][0] == seen[-1][1] > 0
        assert sorted(seen) == seen


def test_a_closed_model_says_so(folder: Path) -> None:
    llm = LLM(folder)
    llm.close()
    llm.close()
    with pytest.raises(RequestError, match="closed"):
        llm.generate("a")


@pytest.fixture
def plain(folder: Path, tmp_path: Path) -> Path:
    """The same model without a template."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path


def test_a_model_without_a_template_says_what_to_do(plain: Path) -> None:
    with LLM(plain) as llm, pytest.raises(RequestError, match=r"no chat template.*chat_template="):
        llm.chat(HELLO)


def test_a_template_can_be_given(llm: LLM, plain: Path) -> None:
    file = plain / "mine.jinja"
    file.write_text(CHATML)
    wanted: list[RequestOutput] = llm.chat(HELLO, GREEDY)
    for given in (CHATML, file, str(file)):
        with LLM(plain, chat_template=given) as opened:
            assert opened.chat(HELLO, GREEDY) == wanted
    with pytest.raises(TemplateError, match=r"none\.jinja cannot be read"):
        LLM(plain, chat_template=plain / "none.jinja")


def test_damaged_weights_are_one_error(plain: Path) -> None:
    weights = plain / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        LLM(plain)


def test_a_reward_model_is_told_from_one_that_writes(plain: Path) -> None:
    tensors = load_file(plain / "model.safetensors")
    tensors["score.weight"] = tensors.pop("lm_head.weight")[:2].clone()
    save_file(tensors, plain / "model.safetensors")
    with LLM(plain) as opened:
        (said,) = opened.classify("a text")
        assert set(said.scores) == {"LABEL_0", "LABEL_1"}
        assert said.score == max(said.scores.values())
        for ask in (opened.generate, opened.score):
            with pytest.raises(RequestError, match=r"a decoder that .*\. It can embed, classify$"):
                ask("a text")
