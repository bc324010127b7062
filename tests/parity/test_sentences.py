"""MiniLM, a real encoder: 100 sentences against transformers, and their nearest neighbours.

The first 70 stand in pairs that say the same in other words; the rest is of other languages and other kinds.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor

from bestiary import LLM, RequestError

SENTENCES = (Path(__file__).parent / "sentences.txt").read_text(encoding="utf-8").splitlines()
PAIRED = 70


@pytest.fixture(scope="module")
def llm(minilm: Path) -> LLM:
    """The encoder, opened by us."""
    return LLM(minilm)


@pytest.fixture(scope="module")
def wanted(minilm: Path) -> Tensor:
    """The vectors of all sentences, by transformers, one at a time: mean of the states, of length 1."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    model = transformers.AutoModel.from_pretrained(minilm).eval()
    vectors = []
    for sentence in SENTENCES:
        with torch.no_grad():
            states = model(**tokenizer(sentence, return_tensors="pt")).last_hidden_state
        vectors.append(F.normalize(states.mean(1), dim=-1)[0])
    return torch.stack(vectors)


def test_the_sentences_are_diverse() -> None:
    assert len(set(SENTENCES)) == 100
    lengths = [len(sentence) for sentence in SENTENCES]
    assert min(lengths) < 5
    assert max(lengths) > 700
    assert sum(not sentence.isascii() for sentence in SENTENCES) >= 20


def test_vectors_are_transformers(llm: LLM, wanted: Tensor) -> None:
    done: list[tuple[int, int]] = []
    together = llm.embed(SENTENCES, progress=lambda *now: done.append(now))
    assert together.dtype == torch.float32
    assert (together - wanted).abs().max() < 1e-5
    assert done[-1] == (100, 100)
    assert len(done) > 1, "these sentences are more than one batch"


def test_a_sentence_alone_is_a_sentence_in_a_batch(llm: LLM, wanted: Tensor) -> None:
    for sentence, vector in zip(SENTENCES, wanted, strict=True):
        (alone,) = llm.embed(sentence)
        assert (alone - vector).abs().max() < 1e-5, sentence


def test_the_nearest_neighbour_says_the_same(llm: LLM) -> None:
    vectors = llm.embed(SENTENCES[:PAIRED])
    likeness = vectors @ vectors.T - 2 * torch.eye(PAIRED)
    nearest = likeness.argmax(1)
    wrong = [SENTENCES[i] for i in range(PAIRED) if nearest[i] != i ^ 1]
    assert wrong == []


def test_what_is_too_long_is_refused_or_cut_as_asked(llm: LLM) -> None:
    text = "word " * 300
    with pytest.raises(
        RequestError, match=r"has 302 tokens, and all-MiniLM-L6-v2 reads 256; .*truncate=True"
    ):
        llm.embed(["short", text])
    cut = llm.embed(text, truncate=True)
    assert (cut - llm.embed("word " * 254)).abs().max() < 1e-6
    assert (cut - llm.embed("word " * 253)).abs().max() > 1e-6


def test_what_it_cannot_do_is_said(llm: LLM) -> None:
    for ask in (llm.classify, llm.tag, llm.fill_mask, llm.score, llm.generate):
        with pytest.raises(RequestError, match=r"all-MiniLM-L6-v2 cannot \w+: .* It can embed$"):
            ask("A text with a [MASK].")
