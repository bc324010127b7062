"""Damaged files of the kinds that rewrite a text, and what these kinds cannot do without."""

from __future__ import annotations

import gzip
import sys
from typing import Any

import pytest

from bestiary.errors import TokenizerError
from bestiary.text import cpm, open_tokenizer
from tests.unit.text.tokenizers_made import folder_of, model_file, vocab_txt
from tests.unit.text.tokenizers_rewriting import clip_file
from tests.unit.text.tokenizers_rewriting import made as rewriting

Json = dict[str, Any]
CHATGLM = {"tokenizer_class": "ChatGLMTokenizer"}
CPM = {"tokenizer_class": "EncDecTokenizer"}
CLIP = "bpe_simple_vocab_16e6.txt.gz"
REWRITING: dict[str, tuple[dict[str, bytes | str | Json], str]] = {
    "an empty icetk": ({"ice_text.model": b"", "tokenizer_config.json": CHATGLM}, "has 0 pieces"),
    "another's model": (
        {"ice_text.model": model_file("unigram"), "tokenizer_config.json": CHATGLM},
        "no piece '<n>' for newlines: it is not icetk's",
    ),
    "an empty CPM-2": ({"vocab.txt": "", "tokenizer_config.json": CPM}, "the vocabulary is empty"),
    "BERT's vocabulary": ({"vocab.txt": vocab_txt(), "tokenizer_config.json": CPM}, "it is not CPM-2's"),
    "no flag": (
        {"vocab.txt": "<unk>\n▂\n", "tokenizer_config.json": CPM | {"english": "no"}},
        "english is 'no', not true or false",
    ),
    "no gzip": ({CLIP: b"#version: 0.2\na b\n"}, "the file is no gzip"),
    "an empty file": ({CLIP: b""}, "the file is cut off"),
    "a file that is cut": ({CLIP: clip_file()[:-20]}, "the file is cut off"),
    "a bomb": ({CLIP: gzip.compress(b"\0" * (32 << 20))}, "unpacks to more than 16,777,216 bytes"),
    "a merge of three letters": ({CLIP: gzip.compress(b"#\na b c\n")}, "a merge is not two tokens"),
    "a merge of no bytes": (
        {CLIP: gzip.compress("#\n你 好\n".encode())},
        "cannot be built.* out of vocabulary",
    ),
    "a merge twice": ({CLIP: gzip.compress(b"#\na b\na b\n")}, "two merges make one token"),
}


@pytest.mark.parametrize("name", REWRITING)
def test_a_kind_that_rewrites(name: str) -> None:
    files, message = REWRITING[name]
    with pytest.raises(TokenizerError, match=message):
        open_tokenizer(folder_of(files))


def test_quirks_of_another_system() -> None:
    with pytest.raises(
        TokenizerError, match=r"'\[gMASK\]' is not in the vocabulary, but should stand around"
    ):
        open_tokenizer(folder_of({"vocab.txt": vocab_txt()}), quirks="chatglm")


@pytest.mark.parametrize("missing", ["jieba", "ftfy"])
def test_a_library_that_is_not_installed(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    cpm.jieba.cache_clear()
    files: dict[str, bytes | str | Json] = {CLIP: clip_file()}
    if missing == "jieba":
        files = {"vocab.txt": "<unk>\n▂\n", "tokenizer_config.json": CPM}
    with pytest.raises(TokenizerError, match=f"not installed. Type: pip install {missing}"):
        open_tokenizer(folder_of(files))


def test_a_long_run_of_chinese_characters_is_refused() -> None:
    tokenizer = rewriting("cpm").ours
    assert tokenizer.encode("世" * 500)
    with pytest.raises(TokenizerError, match=r"10,000 Chinese characters follow character 3 without a mark"):
        tokenizer.encode("abc" + "世" * 10_001)
