"""Scores against transformers' loss, and divergences against torch's."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import transformers

from bestiary import LLM
from bestiary.errors import RequestError
from bestiary.load import load
from bestiary.models import EncoderDecoder
from bestiary.run import score
from tests import tiny

from . import answerer


@pytest.mark.parametrize("name", ["llama", "llama-dynamic"])
def test_log_likelihoods_are_transformers_loss(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = tiny.make(name, tmp_path)
    model = load(tmp_path).decoder
    ids = torch.randint(130, (50,))
    monkeypatch.setattr(score, "ROWS", 16)  # several pieces, the last one short
    ours = score.log_likelihoods(model, ids.tolist())
    with torch.no_grad():
        logits = reference(ids[None]).logits[0].double()
        loss = reference(ids[None], labels=ids[None]).loss.item()
    theirs = logits.log_softmax(-1)[:-1].gather(-1, ids[1:, None])[:, 0]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert score.perplexity(model, ids.tolist()) == pytest.approx(math.exp(loss), rel=1e-5)


def test_perplexity_by_windows(tmp_path: Path) -> None:
    reference = tiny.make("llama", tmp_path)
    model = load(tmp_path).decoder
    ids = torch.randint(130, (41,))
    losses = []
    for window in ids[:40].split(20):  # the last window has one token, and nothing to score
        with torch.no_grad():
            losses.append(reference(window[None], labels=window[None]).loss.item())
    assert score.perplexity(model, ids.tolist(), window=20) == pytest.approx(
        math.exp(sum(losses) / 2), rel=1e-5
    )


CHOICES = [[1, 2, 3, 9, 9], [1, 2, 3, 4], [1, 2, 8, 8, 8, 8], [7, 2, 3, 4]]


@pytest.mark.parametrize("name", ["llama", "llama-dynamic", "mistral"])
def test_choices_are_scored_as_each_alone(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = tiny.make(name, tmp_path)
    model = load(tmp_path).decoder
    monkeypatch.setattr(score, "ROWS", 2)  # a prompt comes in pieces
    begins = [3, 3, 2, 1]
    for ids, begin, ours in zip(CHOICES, begins, score.continuations(model, CHOICES, begins), strict=True):
        with torch.no_grad():
            logits = reference(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        theirs = torch.stack([logits[i - 1, ids[i]] for i in range(begin, len(ids))])
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_choices_of_a_source_are_transformers(tmp_path: Path) -> None:
    answerer.publish(tmp_path)
    reference = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path).eval()
    choices = ["no", "yes", "yes, a bit"]
    with LLM(tmp_path) as llm:
        found = llm.score("is it so?", choices=choices)
        source = torch.tensor([[*llm.tokenizer.encode("is it so?"), 1]])
        for choice, scored in zip(choices, found, strict=True):
            ids = llm.tokenizer.encode(choice)
            with torch.no_grad():
                logits = reference(input_ids=source, decoder_input_ids=torch.tensor([[0, *ids[:-1]]])).logits
            theirs = logits[0].double().log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])[:, 0]
            assert scored.logprobs == pytest.approx(theirs.tolist(), abs=1e-4)
            assert scored.token_ids == ids
            assert scored.logprob == pytest.approx(theirs.sum().item(), abs=1e-4)
            assert scored.per_token == pytest.approx(theirs.mean().item(), abs=1e-4)
            assert scored.perplexity == pytest.approx(math.exp(-theirs.mean().item()), rel=1e-4)
        with pytest.raises(RequestError, match=r"score\(source, choices=\[answer\]\)"):
            llm.score("is it so?")


@pytest.mark.default_model
def test_what_a_text_and_its_choices_are_scored_from() -> None:
    with LLM("smollm2", context=64) as llm:
        paris, london = llm.score("The capital of France is", choices=[" Paris", " London"])
        assert paris.logprob > london.logprob
        assert llm.tokenizer.decode(paris.token_ids, continues=True) == " Paris"
        assert paris.per_character == paris.logprob / 6
        # "ca" + "t" is one token: all of it, the prompt's letters too, is scored.
        (cat,) = llm.score("The ca", choices=["t"])
        assert llm.tokenizer.decode(cat.token_ids, continues=True) == " cat"
        assert cat.per_byte == cat.logprob
        (whole,) = llm.score("The capital of France is Paris")
        ids = llm.tokenizer.encode("The capital of France is Paris")
        assert whole.token_ids == ids[1:]  # nothing stands before the first
        assert whole.perplexity == pytest.approx(score.perplexity(llm.writer, ids))
        with pytest.raises(RequestError, match="the choice '' has no tokens"):
            llm.score("a", choices=[""])
        with pytest.raises(RequestError, match="nothing stands before the choices"):
            llm.score("", choices=["a"])
        with pytest.raises(RequestError, match="choices stand after one text, and 2 were given"):
            llm.score(["a", "b"], choices=["c"])
        with pytest.raises(RequestError, match="choices='cat' is one text"):
            llm.score("a", choices="cat")
        scored: list[int] = []
        for bad, why in (
            ("word " * 70, r"has \d+ tokens, and the context is 64"),
            ("", "leaves nothing to score"),
        ):
            with pytest.raises(RequestError, match=why):
                llm.score(["The capital", bad], progress=lambda done, _: scored.append(done))
        assert scored == []  # what is wrong is said before anything is computed


def test_an_answer_without_its_source_is_refused(tmp_path: Path) -> None:
    tiny.make("t5", tmp_path)
    model = load(tmp_path).model
    assert isinstance(model, EncoderDecoder)
    with pytest.raises(RequestError, match="give source="):
        score.log_likelihoods(model, [0, 5, 6])


@pytest.mark.parametrize("ids", [[], [3]])
def test_too_few_tokens_are_refused(ids: list[int], tmp_path: Path) -> None:
    tiny.make("llama", tmp_path)
    model = load(tmp_path).decoder
    with pytest.raises(RequestError, match="nothing to score"):
        score.log_likelihoods(model, ids)
    with pytest.raises(RequestError, match="nothing to score"):
        score.perplexity(model, ids)


def test_kl_divergence_is_torchs() -> None:
    p, q = torch.randn(300, 40), torch.randn(300, 40)
    wanted = torch.nn.functional.kl_div(
        q.double().log_softmax(-1), p.double().log_softmax(-1), reduction="batchmean", log_target=True
    )
    assert score.kl_divergence(p, q) == pytest.approx(wanted.item(), rel=1e-12)
    assert score.kl_divergence(p, p) == 0
    assert score.kl_divergence(p, p + 5) == pytest.approx(0, abs=1e-6)  # a shift of logits is no difference


def test_top1_agreement_counts_rows() -> None:
    p = torch.randn(300, 40)
    q = p.clone()
    q[::3] = -q[::3]
    assert score.top1_agreement(p, q) == pytest.approx(200 / 300)


@pytest.mark.parametrize(
    ("p", "q"),
    [(torch.zeros(2, 3), torch.zeros(3, 3)), (torch.zeros(3), torch.zeros(3)), (torch.zeros(0, 3),) * 2],
)
def test_unlike_logits_are_refused(p: torch.Tensor, q: torch.Tensor) -> None:
    for compare in (score.kl_divergence, score.top1_agreement):
        with pytest.raises(RequestError, match="should both be"):
            compare(p, q)
