"""What is refused, each by a message that names it: unknown parts, regular expressions, broken files."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from transformers.utils import sentencepiece_model_pb2_new as sentencepiece_model

from bestiary.errors import TokenizerError
from bestiary.text import open_tokenizer
from bestiary.text.gguf import from_metadata
from bestiary.text.modelproto import BYTE, check_charsmap, read
from tests.unit.text.tokenizers_made import (
    byte_level_json,
    folder_of,
    gguf_bpe,
    gguf_model,
    llama_json,
    made,
    model_file,
    slow_files,
    unigram_json,
    vocab_txt,
)

Json = dict[str, Any]
EVIL = "(a+)+b"


def with_(file: Json, **parts: object) -> Json:
    """Return a tokenizer.json with other parts."""
    return {**file, **parts}


def with_model(file: Json, **settings: object) -> Json:
    """Return a tokenizer.json whose model has other settings."""
    return {**file, "model": {**file["model"], **settings}}


def split(regex: str) -> Json:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


TOKEN = {"id": 5000, "content": "<x>", "special": True}
REFUSED: dict[str, tuple[Callable[[], Json], str]] = {
    "regex in a pre-tokenizer": (
        lambda: with_(byte_level_json(), pre_tokenizer={"type": "Sequence", "pretokenizers": [split(EVIL)]}),
        r"pre-tokenizer Split: the regular expression '\(a\+\)\+b'.*published",
    ),
    "regex in a normalizer": (
        lambda: with_(
            byte_level_json(), normalizer={"type": "Replace", "pattern": {"Regex": EVIL}, "content": ""}
        ),
        "normalizer Replace: the regular expression",
    ),
    "regex nearly right": (
        lambda: with_(byte_level_json(), pre_tokenizer=split(r"\p{N}{1,4}")),
        "not that of a published",
    ),
    "unknown normalizer": (
        lambda: with_(byte_level_json(), normalizer={"type": "Spell"}),
        "normalizer 'Spell' is not known",
    ),
    "unknown pre-tokenizer": (
        lambda: with_(byte_level_json(), pre_tokenizer={"type": "Jieba"}),
        "pre-tokenizer 'Jieba' is not known",
    ),
    "unknown setting": (
        lambda: with_(byte_level_json(), pre_tokenizer={"type": "ByteLevel", "locale": "tr"}),
        "ByteLevel has 'locale', which is not known",
    ),
    "unknown part": (lambda: with_(byte_level_json(), hooks=[]), "tokenizer.json has 'hooks'"),
    "unknown model": (
        lambda: with_model(byte_level_json(), type="WordLevel"),
        "model 'WordLevel' is not known",
    ),
    "unknown decoder": (
        lambda: with_(byte_level_json(), decoder={"type": "CTC"}),
        "decoder 'CTC' is not known",
    ),
    "no decoder": (lambda: with_(byte_level_json(), decoder=None), "there is no decoder"),
    "decoders in another order": (
        lambda: with_(
            llama_json(),
            decoder={"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]},
        ),
        "ByteFallback is not known at this place",
    ),
    "unknown post-processor": (
        lambda: with_(byte_level_json(), post_processor={"type": "X"}),
        "post-processor 'X'",
    ),
    "dropout": (lambda: with_model(byte_level_json(), dropout=0.1), "dropout 0.1 would make each run differ"),
    "an id twice": (lambda: with_model(byte_level_json(), vocab={"a": 0, "b": 0}), "two tokens share an id"),
    "an id below zero": (
        lambda: with_model(byte_level_json(), vocab={"a": -1}),
        "the vocabulary is empty, or",
    ),
    "a merge of three": (
        lambda: with_model(byte_level_json(), merges=["a b c"]),
        "a merge is not two tokens",
    ),
    "a merge to nothing known": (lambda: with_model(byte_level_json(), merges=["q z"]), "a merge makes 'qz'"),
    "an added token on another": (
        lambda: with_(byte_level_json(), added_tokens=[{"id": 300, "content": "<x>"}]),
        "added token '<x>' has id 300, which is",
    ),
    "an added token out of line": (
        lambda: with_(unigram_json(), added_tokens=[TOKEN]),
        "id 5000 where 103 is next",
    ),
    "an unk that is not there": (
        lambda: with_model(llama_json(), unk_token="<u>"),
        "unk_token '<u>' is not in",
    ),
    "a unigram unk past the end": (
        lambda: with_model(unigram_json(), unk_id=9999),
        "unk_id '9999' is not one of",
    ),
    "a precompiled map": (
        lambda: with_(unigram_json(), normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA/w=="}),
        "the map of characters .* is damaged",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_tokenizer_json(name: str) -> None:
    make, message = REFUSED[name]
    folder = folder_of({"tokenizer.json": make()})
    with pytest.raises(TokenizerError, match=message) as caught:
        open_tokenizer(folder)
    assert str(folder / "tokenizer.json") in str(caught.value)


def test_every_regular_expression_that_is_run_is_in_the_table() -> None:
    # The check sees the file's own text, so a published one must pass letter for letter.
    gpt2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    last = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    file = with_(byte_level_json(), pre_tokenizer={"type": "Sequence", "pretokenizers": [split(gpt2), last]})
    ours = open_tokenizer(folder_of({"tokenizer.json": file}))
    assert ours.encode("It's 12 o'clock  now") == made("byte-level").ours.encode("It's 12 o'clock  now")


# Folders.

CONFIGS: dict[str, tuple[bytes | str, str, str]] = {
    "tokenizer.model": (model_file("bpe"), "ChatGLMTokenizer", "'ChatGLMTokenizer', which may change a text"),
    "vocab.txt": (vocab_txt(), "CpmAntTokenizer", "'CpmAntTokenizer'; of vocab.txt files only BERT's"),
    "x.tiktoken": (b"IQ== 0\nIg== 1\n", "MyTokenizer", "that of no system known here"),
    "vocab.json": (
        json.dumps(slow_files()["vocab.json"]),
        "BartphoTokenizer",
        "'BartphoTokenizer'; how that splits",
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_class_that_is_not_known(name: str) -> None:
    content, class_name, message = CONFIGS[name]
    config = {"tokenizer_class": class_name}
    folder = folder_of({name: content, "merges.txt": "a b\n", "tokenizer_config.json": config})
    with pytest.raises(TokenizerError, match=re.escape(message)):
        open_tokenizer(folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "tokenizer_config.json at 1: not JSON"),
        ('{"add_bos_token": "yes"}', "add_bos_token is 'yes', not true or false"),
        ('{"eos_token": 2}', "eos_token is '2', not a token's spelling"),
        ('{"added_tokens_decoder": {"x": {"content": "a"}}}', "'x' is no token id"),
        ('{"added_tokens_decoder": {"99999999999": {"content": "a"}}}', "no token id"),
        ('{"added_tokens_decoder": {"7": {"content": "", "special": true}}}', "no token with its spelling"),
        ('{"added_tokens_decoder": {"7": {"content": "a", "special": 1}}}', "special of 'a' is '1'"),
        ('{"added_tokens_decoder": []}', "added_tokens_decoder"),
        ('{"additional_special_tokens": {"a": 1}}', "additional_special_tokens is no list"),
        ('{"tokenizer_class": 7}', "tokenizer_class is no string"),
    ],
)
def test_a_config_that_is_wrong(config: str, message: str) -> None:
    if message == "added_tokens_decoder":
        config = '{"added_tokens_decoder": [1]}'
    folder = folder_of({"tokenizer.model": model_file("bpe"), "tokenizer_config.json": config})
    with pytest.raises(TokenizerError, match=re.escape(message)):
        open_tokenizer(folder)


def test_what_no_folder_holds(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="no tokenizer in this folder"):
        open_tokenizer(tmp_path)
    with pytest.raises(TokenizerError, match=r"nothing\.json"):
        open_tokenizer(tmp_path / "nothing.json")
    os.mkfifo(tmp_path / "tokenizer.json")
    with pytest.raises(TokenizerError, match="not a regular file"):
        open_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer.json").symlink_to("/etc/hostname")
    with pytest.raises(TokenizerError, match="leads out of the model's folder"):
        open_tokenizer(tmp_path)
    for name in ("a.model", "b.model"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match=r"a\.model or b\.model\?"):
        open_tokenizer(tmp_path)


def test_a_vocabulary_that_is_not_byte_level() -> None:
    folder = folder_of({"vocab.json": {"a": 0, "b</w>": 1}, "merges.txt": "#version: 0.2\n"})
    with pytest.raises(TokenizerError, match="not byte-level BPE"):
        open_tokenizer(folder)


# SentencePiece.


def proto() -> Any:
    """Return the trained BPE model as a message that can be changed."""
    message: Any = sentencepiece_model.ModelProto()  # type: ignore[attr-defined]
    message.ParseFromString(model_file("bpe"))
    return message


def broken(change: Callable[[Any], object]) -> bytes:
    message = proto()
    change(message)
    data: bytes = message.SerializeToString()
    return data


BROKEN: dict[str, tuple[Callable[[Any], object], str]] = {
    "a piece twice": (lambda m: setattr(m.pieces[300], "piece", m.pieces[301].piece), "a piece twice"),
    "an empty piece": (lambda m: setattr(m.pieces[300], "piece", ""), "a piece that is empty"),
    "a long piece": (lambda m: setattr(m.pieces[300], "piece", "x" * 5000), "or longer than 4096"),
    "a score that is no number": (
        lambda m: setattr(m.pieces[300], "score", float("nan")),
        "no finite number",
    ),
    "two unknown pieces": (lambda m: setattr(m.pieces[300], "type", 2), "2 unknown pieces where one belongs"),
    "a byte too few": (lambda m: setattr(m.pieces[20], "type", 1), "255 byte pieces"),
    "no byte fallback": (lambda m: setattr(m.trainer_spec, "byte_fallback", False), "256 byte pieces"),
    "characters as pieces": (lambda m: setattr(m.trainer_spec, "model_type", 4), "the model's type is 4"),
    "a denormalizer": (
        lambda m: setattr(m.denormalizer_spec, "precompiled_charsmap", b"x"),
        "has a denormalizer",
    ),
    "no pieces": (lambda m: m.ClearField("pieces"), "the model has 0 pieces"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_sentencepiece_model(name: str) -> None:
    change, message = BROKEN[name]
    folder = folder_of({"tokenizer.model": broken(change)})
    with pytest.raises(TokenizerError, match=message):
        open_tokenizer(folder)


def test_what_is_written_is_what_was_read() -> None:
    for algorithm in ("bpe", "unigram"):
        data = model_file(algorithm)
        first = sentencepiece.SentencePieceProcessor(model_proto=data)
        again = sentencepiece.SentencePieceProcessor(model_proto=read(data).write())
        pieces = range(len(first))
        assert [first.id_to_piece(i) for i in pieces] == [again.id_to_piece(i) for i in pieces]
        assert [first.get_score(i) for i in pieces] == [again.get_score(i) for i in pieces]
        assert (first.bos_id(), first.eos_id(), first.unk_id()) == (
            again.bos_id(),
            again.eos_id(),
            again.unk_id(),
        )
        assert read(data).types.count(BYTE) == (256 if algorithm == "bpe" else 0)


@pytest.mark.parametrize("end", [0, 1, 7, 100, 1000, -1])
def test_a_model_that_is_cut(end: int) -> None:
    with pytest.raises(TokenizerError):
        read(model_file("bpe")[:end])


def test_a_map_of_characters_never_leads_outside_itself() -> None:
    # NFKC's own map passes; damaged ones are refused, or lead nowhere else: no crash then.
    message: Any = sentencepiece_model.ModelProto()  # type: ignore[attr-defined]
    message.ParseFromString(model_file("unigram"))
    blob = message.normalizer_spec.precompiled_charsmap
    check_charsmap(blob)
    size = int.from_bytes(blob[:4], "little")
    text = "ﬁ Ⅳ ㌔ ｱ ﷺ e\u0301 " + "".join(map(chr, range(0x20, 0x3000, 7)))
    refused = 0
    draw = random.Random(0)
    for number in range(300):
        out = bytearray(blob)
        at = draw.randrange(4 + size) if number % 10 else draw.randrange(4)
        out[at] ^= 1 << draw.randrange(8)
        try:
            check_charsmap(bytes(out))
        except TokenizerError:
            refused += 1
            continue
        message.normalizer_spec.precompiled_charsmap = bytes(out)
        folder = folder_of({"tokenizer.model": message.SerializeToString()})
        with contextlib.suppress(TokenizerError):  # the library finds more faults of its own
            open_tokenizer(folder).encode(text)
    assert refused > 20
    for wrong in (
        b"",
        b"\0" * 4,
        blob[:-1] + b"x",
        blob[: size // 2],
        (size + 4).to_bytes(4, "little") + blob[4:],
    ):
        with pytest.raises(TokenizerError, match="map of characters"):
            check_charsmap(wrong)


# GGUF.

KEYS: dict[str, tuple[Json, str]] = {
    "no pre-tokenizer": ({"pre": None}, r"tokenizer\.ggml\.pre is missing.*Convert the model again"),
    "unknown pre-tokenizer": ({"pre": "kimi-k9"}, "pre is 'kimi-k9', so how words are split is not known"),
    "unknown kind": ({"model": "rwkv"}, "model is 'rwkv'; known: gpt2, llama, t5, bert"),
    "no kind": ({"model": None}, "model is 'None'"),
    "tokens that are no array": ({"tokens": "abc"}, "tokens is no array"),
    "tokens of another type": ({"tokens": [1, 2]}, "not None of type str"),
    "types that do not fit": ({"token_type": [1, 2]}, "token_type has 2 items"),
    "types that are not known": ({"tokens": ["a"], "token_type": [9]}, "other numbers than 1 to 6"),
    "a token twice": ({"tokens": ["a", "a"], "token_type": [1, 1], "merges": []}, "tokens has a token twice"),
    "an id past the end": ({"eos_token_id": 70000}, "eos_token_id is 70000, but there are 402 tokens"),
    "an id that is no number": ({"eos_token_id": "2"}, "eos_token_id is '2', not of type int"),
    "a flag that is none": ({"add_eos_token": 1}, "add_eos_token is '1', not of type bool"),
}


@pytest.mark.parametrize("name", KEYS)
def test_gguf_keys(name: str) -> None:
    changes, message = KEYS[name]
    keys = gguf_bpe() | {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    with pytest.raises(TokenizerError, match=message):
        from_metadata({key: value for key, value in keys.items() if value is not None})


def test_gguf_without_scores() -> None:
    keys = gguf_model("bpe")
    del keys["tokenizer.ggml.scores"]
    with pytest.raises(TokenizerError, match="scores is missing"):
        from_metadata(keys)
