"""Tokenizer files damaged at random: each is refused by one kind of error, or works; no crash, no hang."""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bestiary.errors import TokenizerError
from bestiary.text import Tokenizer, bpe, hf, sentencepiece, tiktoken, wordpiece
from bestiary.text.declared import Declared
from bestiary.text.gguf import from_metadata
from bestiary.text.modelproto import ModelProto
from tests.unit.text.tokenizers_made import (
    byte_level_json,
    gguf_bpe,
    gguf_model,
    llama_json,
    ranks,
    slow_files,
    unigram_json,
    vocab_txt,
    wordpiece_json,
)

COUNT = 20_000
SECONDS = 2.0

# What a value is replaced by, as JSON, since each mutant gets its own.
NASTY = r"""
null|true|false|0|-1|1|2147483648|4294967296|1e308|-0.5|100000000000000000000|""|"a"|"a b"|"<unk>"|[]|{}|[[]]
"\u0000"|["a","b"]|[1,2]|{"type":"x"}|{"Regex":"(a+)+b"}|{"String":""}|{"Regex":"\\s+"}|"\u2581"|{"type":"Fuse"}
""".strip().replace("\n", "|").split("|")  # fmt: skip


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return where the values in a JSON value are; one in twenty of a long list's."""
    found = [at]
    items = list(
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, item in items[:: max(1, len(items) // 20)]:
        found += places(item, (*at, key))
    return found


def change(value: Any, where: tuple[Any, ...], draw: random.Random) -> None:
    """Replace, remove or rename one value."""
    try:
        for key in where[:-1]:
            value = value[key]
        kind = draw.random()
        if kind < 0.6:
            value[where[-1]] = json.loads(draw.choice(NASTY))
        elif kind < 0.8 or isinstance(value, list):
            del value[where[-1]]
        else:
            value[draw.choice(["type", "id", "dropout", "vocab", "x", ""])] = value.pop(where[-1])
    except (KeyError, IndexError, TypeError, AttributeError):  # an earlier change took it away
        return


def damage(data: bytes, draw: random.Random) -> bytes:
    """Return data with bytes changed, taken out, doubled, or cut off."""
    out = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 4])):
        at = draw.randrange(len(out) + 1)
        kind = draw.random()
        if kind < 0.5 and at < len(out):
            out[at] = draw.choice([0, 1, 10, 32, 127, 128, 255, out[at] ^ 1 << draw.randrange(8)])
        elif kind < 0.7:
            del out[at : at + draw.randrange(1, 9)]
        elif kind < 0.95:
            out[at:at] = out[at : at + draw.randrange(1, 9)]
        else:
            del out[at:]
    return bytes(out)


def use(tokenizer: Tokenizer, draw: random.Random) -> None:
    """Do with a tokenizer what one does."""
    for control in (False, True):
        tokenizer.encode("Hello <|im_end|></s> don't 12 你🙂\n", control=control)
    assert set(tokenizer.control.values()).isdisjoint(tokenizer.encode("".join(tokenizer.control)))
    ids = [draw.randrange(tokenizer.vocab_size + 2) for _ in range(8)]
    tokenizer.decode(ids, control=True)


def attack(make: Callable[[random.Random], Tokenizer], count: int = COUNT) -> None:
    """Open mutants; anything but a TokenizerError, and more than two seconds, fails the test."""
    refused = worked = 0
    for seed in range(count):
        draw = random.Random(seed)
        began = time.monotonic()
        try:
            use(make(draw), draw)
            worked += 1
        except TokenizerError:
            refused += 1
        assert time.monotonic() - began < SECONDS, f"mutant {seed}"
    assert refused > count // 50
    assert worked > count // 100


def small(file: dict[str, Any]) -> dict[str, Any]:
    """Return a tokenizer.json with a vocabulary of about sixty tokens, so that a mutant takes little time."""
    model = file["model"]
    if isinstance(model["vocab"], list):
        model["vocab"] = model["vocab"][:60]
        return file
    special = {token["content"] for token in file["added_tokens"]}
    kept = {name: number for name, number in model["vocab"].items() if name in special or len(name) == 1}
    kept = dict(list(kept.items())[:30]) | {
        name: model["vocab"][name] for name in "abcdehilorst" if name in kept
    }
    merges: list[list[str]] = []
    for left, right in model.get("merges", []):
        if left in kept and right in kept and len(merges) < 20:
            merges.append([left, right])
            kept[left + right] = model["vocab"][left + right]
    if merges:
        model["merges"] = merges
    model["vocab"] = kept
    return file


def _json_mutants() -> Callable[[random.Random], Tokenizer]:
    files = list(map(small, (byte_level_json(), llama_json(), unigram_json(), wordpiece_json())))
    known = [(json.dumps(file), places(file)) for file in files]

    def make(draw: random.Random) -> Tokenizer:
        text, where = draw.choice(known)
        value = json.loads(text)
        for _ in range(draw.choice([1, 1, 1, 3])):
            change(value, draw.choice(where), draw)
        if not isinstance(value, dict):
            raise TokenizerError("no object")  # the reader of JSON files says so
        return hf.build(value, Declared(), control={})

    return make


def test_tokenizer_json() -> None:
    attack(_json_mutants())


def test_tokenizer_json_bytes(tmp_path: Path) -> None:
    data = json.dumps(small(byte_level_json())).encode()

    def make(draw: random.Random) -> Tokenizer:
        (tmp_path / "tokenizer.json").write_bytes(damage(data, draw))
        return hf.load(tmp_path / "tokenizer.json", Declared(), control={})

    attack(make, 2000)


def small_proto() -> ModelProto:
    names = [
        "<unk>",
        "<s>",
        "</s>",
        "▁",
        "▁He",
        "llo",
        "l",
        "o",
        "H",
        "e",
        "<mid>",
        "don",
        "'t",
        "1",
        "2",
        "你",
    ]
    return ModelProto(names, [-0.5 * i for i in range(len(names))], [2, 3, 3, *[1] * 7, 4, *[1] * 5])


def test_sentencepiece_model() -> None:
    proto = small_proto()
    proto.check()
    data = proto.write()

    def make(draw: random.Random) -> Tokenizer:
        return sentencepiece.load(Path("x.model"), damage(data, draw), Declared(), control={})

    attack(make)


def test_tiktoken() -> None:
    table = ranks(byte_level_json())
    data = b"\n".join(b"%s %d" % (base64.b64encode(token), rank) for token, rank in table.items())
    said = Declared(class_name="QWenTokenizer")

    def make(draw: random.Random) -> Tokenizer:
        mutant = damage(data, draw) if draw.random() < 0.95 else data + b"\n"
        return tiktoken.load(Path("x.tiktoken"), mutant, said, control={})

    attack(make)


def test_vocab_and_merges() -> None:
    files = slow_files()
    vocab, merges = json.dumps(files["vocab.json"]), str(files["merges.txt"])
    where = places(files["vocab.json"])

    def make(draw: random.Random) -> Tokenizer:
        value, lines = json.loads(vocab), merges
        if draw.random() < 0.5:
            change(value, draw.choice(where), draw)
        else:
            lines = damage(lines.encode(), draw).decode(errors="replace")
        return bpe.build(value, lines, Declared(), control={})

    attack(make)


def test_vocab_txt() -> None:
    words = [word for word in vocab_txt().split("\n") if len(word) > 1]
    data = "\n".join([*words[:5], *words[5::4], ""]).encode()

    def make(draw: random.Random) -> Tokenizer:
        return wordpiece.of_text(damage(data, draw).decode(errors="replace"), Declared(), control={})

    attack(make)


def test_gguf_keys() -> None:
    few = {key: value[:80] if isinstance(value, list) else value for key, value in gguf_model("bpe").items()}
    few["tokenizer.ggml.precompiled_charsmap"] = []
    few["tokenizer.ggml.token_type"] = [1 if kind == 6 else kind for kind in few["tokenizer.ggml.token_type"]]
    known = [(json.dumps(keys), places(keys)) for keys in (gguf_bpe(), few)]

    def make(draw: random.Random) -> Tokenizer:
        text, where = draw.choice(known)
        value = json.loads(text)
        for _ in range(draw.choice([1, 1, 2])):
            change(value, draw.choice(where), draw)
        return from_metadata(value)

    attack(make)


@pytest.mark.nightly
def test_many_more_of_tokenizer_json() -> None:
    attack(_json_mutants(), 1_000_000)
