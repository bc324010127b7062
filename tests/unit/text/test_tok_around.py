"""What stands around a text and around two, and where in a text its tokens stand."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tokenizers
import transformers
from tokenizers import processors

from bestiary.errors import TokenizerError
from bestiary.text import open_tokenizer
from bestiary.text.tokenizer import Locates

from .tokenizers_made import byte_level_json, folder_of, slow_files, vocab_txt, wordpiece_json

PAIRS = [("The quick fox", "jumps over it"), ("naïve café", "x"), ("a", "dog " * 30)]
CLS, SEP = ("[CLS]", 2), ("[SEP]", 3)
PROCESSORS: dict[str, tokenizers.processors.PostProcessor] = {
    "bert": processors.BertProcessing(SEP, CLS),
    "roberta": processors.RobertaProcessing(SEP, CLS),
    "template": processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[CLS, SEP]
    ),
    "two before": processors.TemplateProcessing(
        single="[CLS] [MASK] $A", pair="$A [SEP] $B [SEP] [SEP]", special_tokens=[CLS, SEP, ("[MASK]", 4)]
    ),
    "no pair": processors.TemplateProcessing(single="$A [SEP]", special_tokens=[SEP]),
    "reversed": processors.Sequence(
        [
            processors.ByteLevel(),
            processors.TemplateProcessing(single="$A", pair="$B:1 [SEP] $A:0", special_tokens=[SEP]),
        ]
    ),
}


@pytest.mark.parametrize("kind", PROCESSORS)
def test_tokenizer_json_is_wrapped_as_its_library_does(kind: str) -> None:
    library = tokenizers.Tokenizer.from_str(json.dumps(wordpiece_json()))
    library.post_processor = PROCESSORS[kind]
    ours = open_tokenizer(folder_of({"tokenizer.json": library.to_str()}))
    for first, second in PAIRS:
        one, two = library.encode(first), library.encode(first, second)
        got = ours.around.wrap(ours.encode(first))
        assert (got.ids, got.segments) == (one.ids, one.type_ids)
        assert ours.around.special(1) == len(one.ids) - len(ours.encode(first))
        if kind != "no pair":  # without one the library puts nothing around two texts, not even what one has
            got = ours.around.wrap(ours.encode(first), ours.encode(second))
            assert (got.ids, got.segments) == (two.ids, two.type_ids)


def test_vocab_txt_is_wrapped_as_bert() -> None:
    folder = folder_of({"vocab.txt": vocab_txt()})
    theirs, ours = transformers.BertTokenizer.from_pretrained(folder), open_tokenizer(folder)
    for first, second in PAIRS:
        wanted = theirs(first, second)
        got = ours.around.wrap(ours.encode(first), ours.encode(second))
        assert (got.ids, got.segments) == (wanted["input_ids"], wanted["token_type_ids"])
    assert ours.mask == theirs.mask_token_id


def test_vocab_and_merges_are_wrapped_as_roberta() -> None:
    files = slow_files()
    names = ["<s>", "</s>", "<pad>", "<mask>", "<unk>"]
    vocab = {**_vocab(files), **{name: len(_vocab(files)) + i for i, name in enumerate(names)}}
    config = {"tokenizer_class": "RobertaTokenizer"}
    folder = folder_of({**files, "vocab.json": vocab, "tokenizer_config.json": config})
    theirs, ours = transformers.RobertaTokenizer.from_pretrained(folder), open_tokenizer(folder)
    for first, second in PAIRS:
        got = ours.around.wrap(ours.encode(first), ours.encode(second))
        assert got.ids == theirs(first, second)["input_ids"]
        assert set(got.segments) == {0}
    assert ours.mask == theirs.mask_token_id == vocab["<mask>"]


def _vocab(files: dict[str, Any]) -> dict[str, int]:
    found = files["vocab.json"]
    read: dict[str, int] = found if isinstance(found, dict) else json.loads(found)
    return read


def test_without_a_template_texts_stand_end_to_end() -> None:
    ours = open_tokenizer(folder_of({"tokenizer.json": byte_level_json()}))
    assert ours.around.wrap([5, 6], [7]).ids == [5, 6, 7]
    assert ours.mask is None


def test_one_control_token_is_found_and_the_others_are_text() -> None:
    file = wordpiece_json()
    ours = open_tokenizer(
        folder_of({"tokenizer.json": file, "tokenizer_config.json": {"mask_token": "[MASK]"}})
    )
    text = "the [MASK] fox [SEP] user"
    all_of_them, none, mask = (ours.encode(text, control=c) for c in (True, False, {"[MASK]"}))
    assert ours.mask == 4
    assert {3, 4} <= set(all_of_them)
    assert not {3, 4} & set(none)
    assert 4 in mask
    assert 3 not in mask
    before, _, after = text.partition("[MASK]")
    assert mask == [*ours.encode(before), 4, *ours.encode(after)]


@pytest.mark.parametrize("make", [wordpiece_json, byte_level_json])
def test_tokens_are_located_in_their_text(make: Any) -> None:
    ours = open_tokenizer(folder_of({"tokenizer.json": make()}))
    assert isinstance(ours, Locates)
    text = "The quick naïve café, 你好 jumps"
    located = ours.locate(text)
    assert [one.id for one in located] == ours.encode(text)
    words: dict[int | None, list[str]] = {}
    for one in located:
        words.setdefault(one.word, []).append(text[one.start : one.end])
    assert "".join(words[0]) == "The"
    assert "quick" in {"".join(parts) for parts in words.values()}


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ([], r"post_processor is '\[\]', not an object"),
        ({"type": "Riddle"}, "post-processor 'Riddle' is not known here"),
        ({"type": "BertProcessing", "cls": ["[CLS]", 2]}, "post_processor: sep is 'None', not a token"),
        ({"type": "TemplateProcessing", "single": [{"Sequence": {"id": "C"}}]}, "is no place of a template"),
        (
            {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 7}}]},
            "is no place of a template",
        ),
        (
            {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[NO]", "type_id": 0}}]},
            "'.NO.' is not in the vocabulary",
        ),
    ],
)
def test_a_damaged_template_is_refused(part: Any, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        open_tokenizer(folder_of({"tokenizer.json": {**wordpiece_json(), "post_processor": part}}))
