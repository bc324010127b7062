"""What heads say of texts, against transformers' pipelines, on small random models of every kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from bestiary import LLM, RequestError
from bestiary.run import encode
from bestiary.run.findings import entities
from bestiary.text.around import Wrapped
from bestiary.text.pipeline import Located

from . import answerer, reader_model

TEXTS = ["The quick brown fox jumps", "a lazy dog", "She said: we'll see, they're here." * 3, "12 345"]
PAIRS = [("the quick fox", "a lazy dog"), ("jumps over the dog", "she said hello world to the user")]
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]

Make = Callable[..., Path]


@pytest.fixture
def publish(tmp_path: Path) -> Make:
    """Write a BERT with a head, a tokenizer and these keys of its config; return its folder."""
    return partial(reader_model.publish, tmp_path)


def _pipeline(task: str, folder: Path, **keys: Any) -> Any:
    tokenizer = transformers.BertTokenizer.from_pretrained(folder)
    kind = {
        "fill-mask": transformers.BertForMaskedLM,
        "text-classification": transformers.BertForSequenceClassification,
        "token-classification": transformers.BertForTokenClassification,
    }[task]
    pipeline: Any = transformers.pipeline  # its overloads take each task as a literal
    return pipeline(task, model=kind.from_pretrained(folder), tokenizer=tokenizer, **keys)


@pytest.mark.parametrize(
    "kind", ["single_label_classification", "multi_label_classification", "regression", None]
)
def test_classes_are_the_pipelines(kind: str | None, publish: Make) -> None:
    names = {0: "negative", 1: "neutral", 2: "positive"}
    folder = publish("SequenceClassification", id2label=names, problem_type=kind)
    theirs = _pipeline("text-classification", folder, top_k=None)
    with LLM(folder) as llm:
        for text, found in zip(TEXTS, llm.classify(TEXTS), strict=True):
            wanted = _scores(theirs(text))
            assert found.scores == pytest.approx(wanted, abs=1e-5)
            assert found.label == max(wanted, key=lambda name: wanted[name])
            assert found.score == found.scores[found.label]
        for (first, second), found in zip(PAIRS, llm.classify(PAIRS), strict=True):
            wanted = _scores(theirs({"text": first, "text_pair": second}))
            assert found.scores == pytest.approx(wanted, abs=1e-5)


def _scores(said: Any) -> dict[str, float]:
    """What a pipeline says, in which one text gives a list in a list and one pair does not."""
    return {one["label"]: one["score"] for one in (said[0] if isinstance(said[0], list) else said)}


def test_a_tuple_is_a_pair_and_a_list_is_several_texts(publish: Make) -> None:
    with LLM(publish("SequenceClassification")) as llm:
        assert llm.classify(PAIRS[0]) == llm.classify([PAIRS[0]])
        assert len(llm.classify(list(PAIRS[0]))) == 2
        with pytest.raises(RequestError, match="text 1 is 3 texts"):
            llm.classify(["a", ("a", "b", "c")])  # type: ignore[list-item]


def test_tags_without_names_are_numbered(publish: Make) -> None:
    folder = publish("TokenClassification", num_labels=5)
    config = json.loads((folder / "config.json").read_text())
    del config["id2label"], config["label2id"]
    (folder / "config.json").write_text(json.dumps(config | {"num_labels": 5}))
    with LLM(folder) as llm:
        labels = {entity.label for row in llm.tag(TEXTS) for entity in row}
    assert labels <= {f"LABEL_{i}" for i in range(5)}
    assert labels - {"LABEL_0", "LABEL_1"}


def test_one_class_is_the_heads_own_number(publish: Make) -> None:
    folder = publish("SequenceClassification", num_labels=1)
    theirs = _pipeline("text-classification", folder, function_to_apply="none")
    with LLM(folder) as llm:
        for text, found in zip(TEXTS, llm.classify(TEXTS), strict=True):
            assert found.score == pytest.approx(theirs(text)[0]["score"], abs=1e-5)


def test_whether_sentences_follow_each_other(publish: Make) -> None:
    folder = publish("NextSentencePrediction")
    model = transformers.BertForNextSentencePrediction.from_pretrained(folder)
    tokenizer = transformers.BertTokenizer.from_pretrained(folder)
    with LLM(folder) as llm, torch.no_grad():
        for (first, second), found in zip(PAIRS, llm.classify(PAIRS), strict=True):
            wanted = model(**tokenizer(first, second, return_tensors="pt")).logits[0].softmax(-1)
            assert list(found.scores) == ["IsNext", "NotNext"]
            torch.testing.assert_close(torch.tensor(list(found.scores.values())), wanted, atol=1e-5, rtol=0)


def test_entities_are_the_pipelines(publish: Make) -> None:
    folder = publish("TokenClassification", id2label=dict(enumerate(TAGS)))
    theirs = _pipeline("token-classification", folder, aggregation_strategy="first")
    with LLM(folder) as llm:
        for text, found in zip(TEXTS, llm.tag(TEXTS), strict=True):
            wanted = [(e["start"], e["end"], e["entity_group"]) for e in theirs(text)]
            assert [(e.start, e.end, e.label) for e in found] == wanted
            assert [e.text for e in found] == [text[start:end] for start, end, _ in wanted]
            for ours, other in zip(found, theirs(text), strict=True):
                assert ours.score == pytest.approx(float(other["score"]), abs=1e-5)
        assert any(llm.tag(TEXTS))
        long = " ".join(TEXTS * 3)
        cut = llm.tag(long, truncate=True)[0]
        assert cut
        assert all(entity.end <= len(long) for entity in cut)


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        ("B-A I-A O B-A B-A", ["A ab", "A d", "A e"]),
        ("I-A I-A I-B O I-B", ["A ab", "B c", "B e"]),
        ("A A B O A", ["A ab", "B c", "A e"]),
        ("B-A I-A E-A S-B S-B", ["A abc", "B d", "B e"]),
        ("O O O O O", []),
    ],
)
def test_words_are_joined_to_entities(tags: str, wanted: list[str]) -> None:
    names = sorted(set(tags.split()))
    rows = torch.tensor([[float(name == tag) for name in names] for tag in tags.split()])
    tokens = [Located(0, i, i + 1, i) for i in range(5)]
    assert [f"{e.label} {e.text}" for e in entities("abcde", tokens, rows, names)] == wanted


def test_masks_are_filled_as_the_pipeline_does(publish: Make) -> None:
    folder = publish("MaskedLM")
    theirs = _pipeline("fill-mask", folder)
    texts = ["the [MASK] fox", "[MASK] quick [MASK] over the lazy dog [MASK]"]
    with LLM(folder) as llm:
        found = llm.fill_mask(texts, top=4)
        for text, filled in zip(texts, found, strict=True):
            said = theirs(text, top_k=4)
            wanted = said if isinstance(said[0], list) else [said]
            for ours, other in zip(filled.masks, wanted, strict=True):
                assert [one.id for one in ours] == [one["token"] for one in other]
                assert [one.score for one in ours] == pytest.approx([one["score"] for one in other], abs=1e-6)
        best = found[0].masks[0][0]
        assert found[0].text == llm.tokenizer.decode(
            [*llm.tokenizer.encode("the"), best.id, *llm.tokenizer.encode("fox")]
        )
        with pytest.raises(RequestError, match=r"'no mask here' holds no \[MASK\]"):
            llm.fill_mask(["[MASK]", "no mask here"])
        with pytest.raises(RequestError, match=r"top=0 should be 1 or more"):
            llm.fill_mask("[MASK]", top=0)


def test_a_masked_model_scores_each_token_with_all_others_seen(publish: Make) -> None:
    folder = publish("MaskedLM")
    model = transformers.BertForMaskedLM.from_pretrained(folder)
    tokenizer = transformers.BertTokenizer.from_pretrained(folder)
    ids = tokenizer(TEXTS[0], return_tensors="pt")["input_ids"][0]
    wanted = []
    for i in range(1, len(ids) - 1):
        hidden = ids.clone()
        hidden[i] = tokenizer.mask_token_id
        with torch.no_grad():
            wanted.append(model(hidden[None]).logits[0, i].double().log_softmax(-1)[ids[i]].item())
    with LLM(folder) as llm:
        (scored,) = llm.score(TEXTS[0])
        assert scored.logprobs == pytest.approx(wanted, abs=1e-5)
        assert scored.token_ids == ids[1:-1].tolist()
        told: list[tuple[int, int]] = []
        llm.score(["a", "the fox"], progress=lambda *done: told.append(done))
        assert told == [(1, 2), (2, 2)]
        with pytest.raises(RequestError, match="'' leaves nothing to score"):
            llm.score(["a", ""])
        with pytest.raises(RequestError, match="cannot score choices: it is an encoder"):
            llm.score(TEXTS[0], choices=["a"])


def test_batches_are_of_one_length_and_small() -> None:
    lengths = [3, 9, 1, 9, 40, 2, 8]
    found = list(encode.batches(lengths, tokens=20))
    assert sorted(row for rows in found for row in rows) == list(range(7))
    assert found[0] == [4]  # longer than a batch may be: alone
    assert [max(lengths[row] for row in rows) for rows in found] == [40, 9, 8, 2]
    for rows in found[1:]:
        assert len(rows) * max(lengths[row] for row in rows) <= 20
    assert list(encode.batches([])) == []


def test_a_text_without_tokens_is_named() -> None:
    with pytest.raises(RequestError, match="text 1 has no tokens"):
        encode.each(torch.nn.Linear(1, 1), [Wrapped([1], [0]), Wrapped([], [])], lambda batch: [0])  # type: ignore[arg-type]


def test_no_texts_give_nothing(publish: Make) -> None:
    with LLM(publish("MaskedLM")) as llm:
        assert llm.embed([]).shape == (0, 0)
        assert llm.fill_mask([]) == []
    with pytest.raises(RequestError, match="this model was closed"):
        llm.embed("a")


@pytest.mark.parametrize("ask", ["classify", "tag", "generate"])
def test_what_a_model_cannot_do_names_what_it_can(ask: str, publish: Make) -> None:
    with (
        LLM(publish("MaskedLM")) as llm,
        pytest.raises(RequestError, match=r"It can embed, fill_mask, score$"),
    ):
        getattr(llm, ask)("a text")


def test_pairs_are_cut_at_the_longer_text(publish: Make) -> None:
    folder = publish("SequenceClassification")
    long = " ".join(["fox"] * 100)
    with LLM(folder) as llm:
        with pytest.raises(RequestError, match=r"has \d+ tokens, and .* reads 64"):
            llm.classify([("a dog", long)])
        cut = llm.classify([("a dog", long)], truncate=True)[0]
        tokenizer = llm.tokenizer
        room = 64 - 3 - len(tokenizer.encode("a dog"))
        fits = tokenizer.decode(tokenizer.encode(long)[:room])
        if len(tokenizer.encode(fits)) == room:
            assert cut.scores == pytest.approx(llm.classify([("a dog", fits)])[0].scores, abs=1e-6)


def test_the_vector_of_a_decoders_text_is_its_last_state(folder: Path) -> None:
    reference = transformers.LlamaModel.from_pretrained(folder).eval()
    with LLM(folder) as llm:
        vectors = llm.embed(TEXTS)
        for text, vector in zip(TEXTS, vectors, strict=True):
            ids = torch.tensor([llm.tokenizer.around.wrap(llm.tokenizer.encode(text)).ids])
            with torch.no_grad():
                wanted = reference(ids).last_hidden_state[0, -1]
            torch.testing.assert_close(vector, wanted, atol=1e-5, rtol=1e-5)


def test_the_vector_of_a_source_is_the_mean_of_its_encoder(tmp_path: Path) -> None:
    answerer.publish(tmp_path)
    reference = transformers.T5EncoderModel.from_pretrained(tmp_path).eval()
    with LLM(tmp_path) as llm:
        vectors = llm.embed(["a", "some longer text"])
        for text, vector in zip(["a", "some longer text"], vectors, strict=True):
            ids = torch.tensor([[*llm.tokenizer.encode(text), 1]])
            with torch.no_grad():
                wanted = reference(ids).last_hidden_state[0].mean(0)
            torch.testing.assert_close(vector, wanted, atol=1e-4, rtol=1e-5)


def test_prompts_of_a_folder_stand_before_texts(publish: Make) -> None:
    folder = publish("MaskedLM")
    said = {"prompts": {"query": "fox: ", "passage": ""}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(said))
    kinds = [("0", "", "Transformer"), ("1", "1_Pooling", "Pooling")]
    modules = [{"name": n, "path": p, "type": f"sentence_transformers.models.{k}"} for n, p, k in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode_mean_tokens": true}')
    with LLM(folder) as llm:
        query, plain = llm.embed("fox: dog", prompt="")[0], llm.embed("dog", prompt_name="passage")[0]
        assert torch.equal(llm.embed("dog")[0], query)
        assert torch.equal(llm.embed("dog", prompt="fox: ")[0], query)
        assert torch.equal(llm.embed("dog", prompt="")[0], plain)
        assert not torch.equal(plain, query)
        with pytest.raises(RequestError, match=r"prompt_name='none' .* there: query, passage"):
            llm.embed("dog", prompt_name="none")
        with pytest.raises(RequestError, match="give one of them"):
            llm.embed("dog", prompt="a", prompt_name="query")
