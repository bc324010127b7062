"""Tokenizer files against the classes of transformers that they were made for, and GGUF files on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
import transformers

from bestiary.text import Tokenizer, open_tokenizer
from tests.unit.text.tokenizer_texts import strings
from tests.unit.text.tokenizers_made import (
    folder_of,
    gguf_bpe,
    gguf_model,
    made,
    slow_files,
    vocab_txt,
)


def differing(tokenizer: Tokenizer, other: Any, *, control: bool = False, seed: int = 0) -> list[str]:
    """Return the texts to which transformers gives other ids."""
    texts = list(strings(1500, seed))
    if control:
        texts += [f"a{name}b {name} " for name in tokenizer.control] + ["".join(tokenizer.control)]
    ids = other(texts, add_special_tokens=False)["input_ids"]
    return [
        text
        for text, there in zip(texts, ids, strict=True)
        if tokenizer.encode(text, control=control) != there
    ]


@pytest.mark.parametrize(
    ("class_name", "more"),
    [
        ("GPT2Tokenizer", {}),
        ("GPT2Tokenizer", {"add_prefix_space": True}),
        ("GPT2Tokenizer", {"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>"]}),
        ("Qwen2Tokenizer", {"eos_token": "<|im_end|>"}),
    ],
)
@pytest.mark.parametrize("control", [False, True])
def test_vocab_and_merges(class_name: str, more: dict[str, Any], control: bool) -> None:
    config = {"tokenizer_class": class_name, **more}
    folder = folder_of({**slow_files(), "tokenizer_config.json": config})
    other = getattr(transformers, class_name).from_pretrained(folder)
    assert differing(open_tokenizer(folder), other, control=control) == []


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"do_lower_case": False},
        {"do_lower_case": False, "strip_accents": True},
        {"tokenize_chinese_chars": False},
    ],
)
@pytest.mark.parametrize("control", [False, True])
def test_vocab_txt(config: dict[str, Any], control: bool) -> None:
    folder = folder_of(
        {"vocab.txt": vocab_txt(), "tokenizer_config.json": {"tokenizer_class": "BertTokenizer", **config}}
    )
    other = transformers.BertTokenizer.from_pretrained(folder)
    long_words = {text for text in strings(1500) if len(text) > 100}  # transformers takes 100 letters a word
    tokenizer = open_tokenizer(folder)
    assert set(differing(tokenizer, other, control=control)) <= long_words
    assert (tokenizer.bos, tokenizer.eos) == (other.cls_token_id, other.sep_token_id)
    assert tokenizer.add_bos
    assert tokenizer.add_eos


@pytest.mark.parametrize("kind", ["byte-level", "llama", "unigram", "wordpiece"])
def test_tokenizer_json_with_control_tokens(kind: str) -> None:
    each = made(kind)
    other = transformers.PreTrainedTokenizerFast(tokenizer_file=str(each.folder / "tokenizer.json"))
    assert differing(each.ours, other, control=True, seed=1) == []


# GGUF files on disk.


def write_gguf(path: Path, keys: dict[str, Any]) -> None:
    """Write a GGUF file that holds a tokenizer and what a reader of Llama files asks for."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    for key, value in keys.items():
        if isinstance(value, list):
            if value:
                writer.add_array(key, value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_string(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_of_byte_level_bpe(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", gguf_bpe())
    tokenizer = open_tokenizer(tmp_path)
    same = made("byte-level").ours
    assert dict(tokenizer.control) == dict(same.control)
    for text in strings(300):
        assert tokenizer.encode(text) == same.encode(text)
        assert tokenizer.encode(text + "<|im_end|>", control=True) == same.encode(
            text + "<|im_end|>", control=True
        )
    other = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    # transformers does not look for the file's user-defined tokens, four spaces among them.
    assert [text for text in differing(tokenizer, other) if " " * 4 not in text] == []


def test_a_gguf_file_of_sentencepiece(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", gguf_model("bpe"))
    same = made("gguf-llama").ours
    tokenizer = open_tokenizer(tmp_path / "model.gguf")
    assert [tokenizer.encode(text) for text in strings(300)] == [same.encode(text) for text in strings(300)]
    assert (tokenizer.bos, tokenizer.eos, tokenizer.add_bos, tokenizer.add_eos) == (1, 2, True, False)


def test_the_first_part_of_a_split_gguf_file_is_taken(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model-00001-of-00002.gguf", gguf_bpe())
    write_gguf(tmp_path / "model-00002-of-00002.gguf", {})
    assert open_tokenizer(tmp_path).vocab_size == made("byte-level").ours.vocab_size


@pytest.mark.parametrize("name", ["mpt", "qwen2"])
def test_a_name_that_stands_for_a_normaliser_composes_characters(name: str) -> None:
    from bestiary.text.gguf import from_metadata

    tokenizer = from_metadata({**gguf_bpe(), "tokenizer.ggml.pre": name})
    assert tokenizer.encode("e\u0301") == tokenizer.encode("é")
    plain = from_metadata({**gguf_bpe(), "tokenizer.ggml.pre": "gpt-2"})
    assert plain.encode("e\u0301") != plain.encode("é")


# The default model.


def test_the_default_model_without_digits_is_as_transformers_reads_it(default_model: Path) -> None:
    tokenizer = open_tokenizer(default_model)
    file = default_model if default_model.is_file() else next(default_model.glob("*.gguf"))
    other = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    # transformers splits words as GPT-2 does whatever the file says; SmolLM splits digits first.
    wrong = [text for text in differing(tokenizer, other) if not any(map(str.isnumeric, text))]
    assert wrong == []
    assert dict(tokenizer.control) == other.get_added_vocab()


# What llama.cpp (llama_cpp_python 0.3.36) gives for this file, without looking for control tokens.
LLAMA_CPP = {
    "In 2024, 3.14 > 2": [788, 216, 34, 32, 34, 36, 28, 216, 35, 30, 33, 36, 2986, 216, 34],
    "½ ² Ⅳ ٣": [16738, 216, 19133, 216, 173, 223, 113, 216, 164, 113],
    "a  1\n22 three": [81, 256, 33, 198, 34, 34, 1296],
    "<|im_end|>": [44, 108, 306, 79, 486, 108, 46],
}


def test_the_default_model_splits_digits_as_llama_cpp_does(default_model: Path) -> None:
    tokenizer = open_tokenizer(default_model)
    assert {text: tokenizer.encode(text) for text in LLAMA_CPP} == LLAMA_CPP
