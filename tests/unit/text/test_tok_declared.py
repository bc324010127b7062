"""What the files beside a tokenizer change: special tokens, BOS and EOS, added tokens, templates."""

from __future__ import annotations

from typing import Any

import pytest

from bestiary.errors import TokenizerError
from bestiary.text import Tokenizer, open_tokenizer
from bestiary.text.gguf import from_metadata
from tests.unit.text.tokenizers_made import (
    byte_level_json,
    folder_of,
    gguf_bpe,
    llama_json,
    made,
    model_file,
    slow_files,
)

Json = dict[str, Any]


def opened(file: Json, **beside: Json) -> Tokenizer:
    """Open a tokenizer.json with other files beside it; `config` is tokenizer_config.json."""
    names = {"config": "tokenizer_config.json", "map": "special_tokens_map.json", "model": "config.json"}
    names |= {"generation": "generation_config.json", "added": "added_tokens.json"}
    return open_tokenizer(
        folder_of({"tokenizer.json": file, **{names[key]: value for key, value in beside.items()}})
    )


def template(*names: str) -> Json:
    """Return a post-processor that puts these around a text; "$" is the text."""
    single = [{"Sequence": {"id": "A"}} if name == "$" else {"SpecialToken": {"id": name}} for name in names]
    return {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {}}


def ends(tokenizer: Tokenizer) -> tuple[int | None, int | None, bool, bool]:
    return tokenizer.bos, tokenizer.eos, tokenizer.add_bos, tokenizer.add_eos


def test_ends_come_from_the_config_the_map_the_post_processor_and_the_model_in_this_order() -> None:
    plain, names = byte_level_json(), {"eos_token": "<|im_end|>"}
    assert ends(opened(plain)) == (None, None, False, False)
    assert ends(opened(plain, model={"bos_token_id": 0, "eos_token_id": [1, 2]})) == (0, 1, False, False)
    assert ends(opened(plain, model={"eos_token_id": 1}, generation={"eos_token_id": 2})) == (
        None,
        2,
        False,
        False,
    )
    assert ends(opened(plain, model={"eos_token_id": 1}, map=names)) == (None, 2, False, False)
    assert ends(opened(plain, config={"eos_token": {"content": "<|im_start|>"}}, map=names)) == (
        None,
        1,
        False,
        False,
    )
    wrapped = plain | {"post_processor": template("<|endoftext|>", "$", "<|im_end|>")}
    assert ends(opened(wrapped)) == (0, 2, True, True)
    assert ends(opened(wrapped, config={"add_bos_token": False})) == (0, 2, False, True)
    assert ends(opened(wrapped, config={"bos_token": None, "add_eos_token": False})) == (0, 2, True, False)
    nested = {"type": "Sequence", "processors": [{"type": "ByteLevel"}, template("<|endoftext|>", "$")]}
    assert ends(opened(plain | {"post_processor": nested})) == (0, None, True, False)


def test_a_name_that_is_not_in_the_vocabulary_is_no_token() -> None:
    assert ends(opened(byte_level_json(), config={"bos_token": "<nope>", "add_bos_token": True})) == (
        None,
        None,
        False,
        False,
    )


def test_added_tokens_that_only_the_config_has() -> None:
    config = {
        "added_tokens_decoder": {"402": {"content": "<new>", "special": True}, "403": {"content": "<word>"}}
    }
    tokenizer = opened(byte_level_json(), config=config, added={"<late>": 404})
    assert tokenizer.vocab_size == 405
    assert tokenizer.control["<new>"] == 402
    assert tokenizer.encode("a<word>b<late><new>", control=True) == [
        *tokenizer.encode("a"), 403, *tokenizer.encode("b"), 404, 402
    ]  # fmt: skip
    assert 402 not in tokenizer.encode("<new>")
    assert 403 in tokenizer.encode("<word>")
    assert tokenizer.decode([403, 402]) == "<word>"
    with pytest.raises(TokenizerError, match="added token '<new>' has id 7, which is"):
        opened(byte_level_json(), config={"added_tokens_decoder": {"7": {"content": "<new>"}}})


def test_what_a_template_writes_is_out_of_a_user_s_reach() -> None:
    # "<tool>" is an added token that is not marked special; a template that writes it makes it a delimiter.
    text = "a <tool> b"
    tool = 401
    assert tool in opened(byte_level_json()).encode(text)
    writes = {"chat_template": "<tool>{{ messages[0].content }}    \n"}
    several = {
        "chat_template": [{"name": "default", "template": "x"}, {"name": "tool_use", "template": "<tool>"}]
    }
    for config in (writes, several):
        tokenizer = opened(byte_level_json(), config=config)
        assert tokenizer.control["<tool>"] == tool
        assert tool not in tokenizer.encode(text)
        assert tool in tokenizer.encode(text, control=True)
        assert "    " not in tokenizer.control  # the template's white space is no delimiter
    folder = folder_of({"tokenizer.json": byte_level_json(), "chat_template.jinja": "{{ x }}<tool>"})
    assert "<tool>" in open_tokenizer(folder).control
    keys = gguf_bpe() | {"tokenizer.chat_template": "<tool>"}
    assert from_metadata(keys).control["<tool>"] == tool


def test_control_tokens_that_no_file_names() -> None:
    for folder in (made("byte-level").folder, folder_of(slow_files())):
        size = open_tokenizer(folder).vocab_size
        tokenizer = open_tokenizer(folder, control={"### End": size})
        assert tokenizer.encode("x### End", control=True)[-1] == size
        assert size not in tokenizer.encode("x### End")
        assert tokenizer.decode([size]) == ""
        assert tokenizer.decode([size], control=True) == "### End"
    with pytest.raises(TokenizerError, match="has the id of an ordinary token"):
        open_tokenizer(made("tiktoken").folder, control={"<x>": 5})
    with pytest.raises(TokenizerError, match="'<x>' has id 5, which is"):
        open_tokenizer(made("byte-level").folder, control={"<x>": 5})
    with pytest.raises(TokenizerError, match="'<mid>' has id 9"):
        open_tokenizer(folder_of({"tokenizer.model": model_file("bpe")}), control={"<mid>": 9})


def test_a_piece_that_a_config_renames_has_no_other_name_left() -> None:
    # InternLM2 calls the piece [UNUSED_TOKEN_146] <|im_start|>; its first name must not be a way around.
    config: Json = {"tokenizer_class": "LlamaTokenizer"}
    config |= {"added_tokens_decoder": {"6": {"content": "<|turn|>", "special": True}}}
    plain = open_tokenizer(folder_of({"tokenizer.model": model_file("bpe")}))
    assert 6 in plain.encode("<mid>")
    renamed = open_tokenizer(
        folder_of({"tokenizer.model": model_file("bpe"), "tokenizer_config.json": config})
    )
    assert renamed.control["<|turn|>"] == 6
    assert 6 not in renamed.encode("<mid> <|turn|>")
    assert renamed.encode("<|turn|>", control=True) == [6]
    assert renamed.decode([6], control=True) == "<|turn|>"


def test_what_follows_a_control_token() -> None:
    class_name = {"tokenizer_class": "LlamaTokenizer"}
    files: Json = {"tokenizer.model": model_file("bpe")}
    legacy = open_tokenizer(folder_of(files | {"tokenizer_config.json": class_name}))
    newer = open_tokenizer(folder_of(files | {"tokenizer_config.json": class_name | {"legacy": False}}))
    bare = open_tokenizer(folder_of(files))
    assert legacy.encode("a<s>b", control=True) == [*legacy.encode("a"), 1, *legacy.encode("b")]
    assert legacy.encode("a<s>b", control=True) == bare.encode("a<s>b", control=True)
    # What follows is decoded as inside a text, where the space of a dummy prefix would show.
    after = {tokenizer: tokenizer.encode("a<s>b", control=True) for tokenizer in (legacy, newer)}
    shown = [tokenizer.decode(ids[ids.index(1) :], continues=True) for tokenizer, ids in after.items()]
    assert shown == [" b", "b"]
    ids = newer.encode("a<s> b", control=True)
    assert newer.decode(ids[ids.index(1) :], continues=True) == " b"


def test_t5_numbers_its_sentinels_downwards() -> None:
    size = 96
    files: Json = {"spiece.model": model_file("unigram")}
    for count in (100, 3):
        config = {"tokenizer_class": "T5Tokenizer"} | ({} if count == 100 else {"extra_ids": count})
        tokenizer = open_tokenizer(folder_of(files | {"tokenizer_config.json": config}))
        assert tokenizer.control["<extra_id_0>"] == size + count - 1
        assert tokenizer.control[f"<extra_id_{count - 1}>"] == size
        assert ends(tokenizer)[2:] == (False, True)
    with pytest.raises(TokenizerError, match="extra_ids is '-1'"):
        open_tokenizer(folder_of(files | {"tokenizer_config.json": config | {"extra_ids": -1}}))


def test_a_bare_model_file_adds_bos_as_llama_does() -> None:
    assert ends(open_tokenizer(folder_of({"tokenizer.model": model_file("bpe")}))) == (1, 2, True, False)


def test_llama_s_own_json_and_model_file_may_lie_side_by_side() -> None:
    folder = folder_of({"tokenizer.json": llama_json(), "tokenizer.model": model_file("bpe")})
    assert open_tokenizer(folder).encode("hello") == made("llama").ours.encode("hello")
    assert open_tokenizer(folder / "tokenizer.model").encode("hello") != made("llama").ours.encode("hello")
