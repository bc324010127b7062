"""What was published in code only: every entry is found where it is certain, and nowhere else."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bestiary import roster
from bestiary.errors import RequestError, TokenizerError
from bestiary.prove.tokens import Setting, unpack
from bestiary.text import declared, open_tokenizer, prompts, quirks
from bestiary.text.chat import ChatTemplate
from bestiary.text.quirks.entry import read
from bestiary.text.tokenizer import Locates
from tests import goldens
from tests.unit.text.tokenizers_made import byte_level_json, folder_of, made, model_file
from tests.unit.text.tokenizers_rewriting import ICE_CONFIG, IMAGES, ice_file
from tests.unit.text.tokenizers_rewriting import made as rewriting

Json = dict[str, Any]


def test_the_entries_are_those_that_the_roster_names() -> None:
    used = {
        entry.tokenizer.quirks
        for entry in roster.entries().values()
        if entry.tokenizer is not None and entry.tokenizer.quirks is not None
    }
    assert used <= set(quirks.named())
    assert len(quirks.named()) >= 17


@pytest.mark.parametrize("name", quirks.named())
def test_an_entry_is_found_by_its_name(name: str) -> None:
    entry = quirks.find(name)
    assert entry.name == name
    assert entry.what
    assert entry.published
    assert len(set(entry.control.values())) == len(entry.control)


@pytest.mark.parametrize(
    ("name", "message"),
    [("chatglm4", "'chatglm4'; did you mean 'chatglm'"), ("zzz", "known: aquila, "), ("x" * 500, "known: ")],
)
def test_a_name_that_no_entry_has(name: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        quirks.find(name)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"what": "a", "published": "b", "contrl": {}}, "has 'contrl'; known: around, "),
        ({"what": "a"}, "says not what it is of, or where"),
        ({"what": "a", "published": "b", "control": {"<x>": "7"}}, "a value of control is not of type int"),
        ({"what": "a", "published": "b", "options": {"x": 1}}, "a value of options is not of type bool"),
    ],
)
def test_an_entry_that_is_wrong(row: Json, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read("made", row)


# What makes an entry certain.


def certain(files: Mapping[str, bytes | str | Json], chosen: str) -> str:
    folder = folder_of(dict(files))
    return quirks.certain(folder / chosen, declared.read(folder)).name


CHATGLM = {"tokenizer_class": "ChatGLMTokenizer"}
CERTAIN: dict[str, tuple[Mapping[str, bytes | str | Json], str]] = {
    "chatglm": ({"ice_text.model": b"", "tokenizer_config.json": CHATGLM}, "ice_text.model"),
    "glm-130b": ({"ice_text.model": b""}, "ice_text.model"),
    "llama-early": (
        {"tokenizer.model": b"", "tokenizer_config.json": {"tokenizer_class": "LLaMATokenizer"}},
        "tokenizer.model",
    ),
    "aquila-ids": ({"tokenizer.json": "{}", "config.json": {"model_type": "aquila"}}, "tokenizer.json"),
    "galactica": ({"tokenizer.json": '{"x": "SPL1T-TH1S-Pl3A5E"}'}, "tokenizer.json"),
}


@pytest.mark.parametrize("name", CERTAIN)
def test_a_folder_that_makes_an_entry_certain(name: str) -> None:
    assert certain(*CERTAIN[name]) == name


def test_a_folder_that_makes_nothing_certain() -> None:
    assert certain({"tokenizer.model": b"", "tokenizer_config.json": CHATGLM}, "tokenizer.model") == "none"
    assert certain({"vocab.txt": "a", "config.json": {"model_type": "yuan"}}, "vocab.txt") == "none"
    assert (
        certain({"tokenizer.json": "{}", "config.json": {"model_type": ["aquila"]}}, "tokenizer.json")
        == "none"
    )


@pytest.mark.parametrize("case", goldens.cases("tokenizers/chatglm2"), ids=lambda case: case.name)
def test_more_conditions_count_for_more(case: Path) -> None:
    data = gzip.decompress((case / "tokenizer.model.gz").read_bytes())
    for key, origin, name in (
        ("config.json", "_name_or_path", "chatglm3"),
        ("tokenizer_config.json", "name_or_path", "chatglm3"),
        ("config.json", "name", "chatglm2"),
    ):
        assert (
            certain({"tokenizer.model": data, key: {origin: "THUDM/chatglm3-6b"}}, "tokenizer.model") == name
        )


# What an entry changes.


def test_the_first_llamas_have_their_ids() -> None:
    config = {"tokenizer_class": "LLaMATokenizer", "bos_token": "", "eos_token": "", "unk_token": ""}
    files: dict[str, bytes | str | Json] = {
        "tokenizer.model": model_file("bpe"),
        "tokenizer_config.json": config,
        "config.json": {"bos_token_id": 0, "eos_token_id": 1},
        "generation_config.json": {"bos_token_id": 0, "eos_token_id": 1},
    }
    folder = folder_of(files)
    tokenizer = open_tokenizer(folder)
    assert (tokenizer.bos, tokenizer.eos, tokenizer.add_bos, tokenizer.add_eos) == (1, 2, True, False)
    assert quirks.wrong_ids(folder) == {"bos_token_id": 0, "eos_token_id": 1}
    with pytest.raises(TokenizerError, match="'LLaMATokenizer', which may change a text"):
        open_tokenizer(folder, quirks=quirks.NONE)


def test_ids_that_are_known_to_be_wrong_are_not_taken() -> None:
    config = {"model_type": "aquila", "bos_token_id": 1, "eos_token_id": 2}
    tokenizer = open_tokenizer(folder_of({"tokenizer.json": byte_level_json(), "config.json": config}))
    assert (tokenizer.bos, tokenizer.eos) == (None, None)
    right = config | {"bos_token_id": 3, "eos_token_id": 4}
    tokenizer = open_tokenizer(folder_of({"tokenizer.json": byte_level_json(), "config.json": right}))
    assert (tokenizer.bos, tokenizer.eos) == (3, 4)


def test_a_prefix_and_control_tokens_that_only_code_names() -> None:
    size = made("model-bpe").ours.vocab_size
    entry = replace(
        quirks.find("chatglm2"),
        control={"[gMASK]": size, "sop": size + 1},
        around=(
            (("[gMASK]", 0), ("sop", 0), (0, 0)),
            (("[gMASK]", 0), ("sop", 0), (0, 0), (1, 0), ("</s>", 0)),
        ),
    )
    tokenizer = open_tokenizer(folder_of({"tokenizer.model": model_file("bpe")}), quirks=entry)
    ids = tokenizer.encode("[gMASK]sop hello")
    assert {size, size + 1}.isdisjoint(ids)
    assert tokenizer.around.wrap(ids).ids == [size, size + 1, *ids]
    assert tokenizer.around.wrap([7], [8]).ids == [size, size + 1, 7, 8, 2]
    assert tokenizer.encode("[gMASK]sop", control=True) == [size, size + 1]
    assert (tokenizer.add_bos, tokenizer.add_eos) == (False, False)


def test_what_the_folder_names_itself_counts() -> None:
    file = byte_level_json()
    size = len(file["model"]["vocab"]) + len(file["added_tokens"])
    added = {"added_tokens_decoder": {str(size): {"content": "<|im_start|>x", "special": True}}}
    entry = quirks.Quirks("made", control={"<|im_start|>x": size + 7, "<y>": size + 1})
    tokenizer = open_tokenizer(
        folder_of({"tokenizer.json": file, "tokenizer_config.json": added}), quirks=entry
    )
    assert tokenizer.control["<|im_start|>x"] == size
    assert tokenizer.control["<y>"] == size + 1


# Galactica.

MARK = "SPL1T-TH1S-Pl3A5E"


def galactica() -> Json:
    """Return a tokenizer.json that splits words as Galactica's does."""
    file = byte_level_json()
    regex = r"""[\(\)\[\]\{\}]|([!"\#\$%\&'\*\+,\-\./:;<=>\?\\\^_`\|\~])\1*"""
    file["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"String": MARK}, "behavior": "Removed", "invert": False},
            {"type": "Digits", "individual_digits": True},
            {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False},
            {"type": "Split", "pattern": {"String": "\n"}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        ],
    }
    for name in ("[START_DNA]", "[END_DNA]", "[START_AMINO]", "[END_AMINO]"):
        number = len(file["model"]["vocab"]) + len(file["added_tokens"])
        file["added_tokens"].append({"id": number, "content": name, "special": True})
    return file


def test_characters_between_two_tokens_are_tokens_each() -> None:
    tokenizer = open_tokenizer(folder_of({"tokenizer.json": galactica()}))
    assert not isinstance(tokenizer, Locates)
    text = "the [START_AMINO]theand[END_AMINO] the"
    ids = tokenizer.encode(text, control=True)
    start, end = (tokenizer.control[name] for name in ("[START_AMINO]", "[END_AMINO]"))
    inside = ids[ids.index(start) + 1 : ids.index(end)]
    assert [tokenizer.piece(one) for one in inside] == [b"t", b"h", b"e", b"a", b"n", b"d"]
    assert tokenizer.decode(ids, control=True) == text
    # As text the two begin nothing, and one of them alone begins nothing either.
    literal = tokenizer.encode(text)
    assert not {start, end} & set(literal)
    assert tokenizer.decode(literal) == text
    assert len(literal) < len(tokenizer.encode(text.replace("theand", "t h e a n d")))
    one = tokenizer.encode(text, control=["[START_AMINO]"])
    assert start in one
    assert end not in one
    assert tokenizer.decode(one, control=True) == text


@pytest.mark.parametrize("case", goldens.cases("prompts"), ids=lambda case: case.name)
def test_marks_are_where_galai_puts_them(case: Path) -> None:
    rows = json.loads((case / "galacia.json").read_text(encoding="utf-8"))
    rows = [row for row in rows if row["case"].startswith("escape_")]
    characters = quirks.find("galactica").characters
    assert characters is not None
    assert len(rows) >= 5
    for row in rows:
        assert characters.apply(row["messages"][0]["content"]) == row["text"]


# icetk.


def test_white_space_is_written_and_read() -> None:
    tokenizer = rewriting("icetk").ours
    for text in ("a\nb", "a\n\n\tb", "f(x):\n    return  x", "a" + " " * 163 + "b"):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert min(ids) >= IMAGES
        assert b"".join(map(tokenizer.piece, ids)).decode().strip() == text
    # The authors' code cannot tell a piece that somebody spells from the white space it stands for.
    assert tokenizer.decode(tokenizer.encode("a<n>b<|tab|>c<|blank_3|>d")) == "a\nb\tc   d"


def test_what_stands_around_a_text() -> None:
    tokenizer = rewriting("icetk").ours
    gmask, sop, eop = (tokenizer.control[name] for name in ("[gMASK]", "<sop>", "<eop>"))
    assert tokenizer.around.wrap([50, 51]).ids == [50, 51, gmask, sop]
    assert tokenizer.around.wrap([50], [51]).ids == [50, gmask, sop, 51, eop]
    assert (tokenizer.bos, tokenizer.eos, tokenizer.mask) == (sop, eop, tokenizer.control["[MASK]"])


def test_the_same_file_is_glm_130b_s_where_no_class_is_named() -> None:
    tokenizer = open_tokenizer(folder_of({"ice_text.model": ice_file()}))
    other = rewriting("icetk").ours
    shift = 20000 - IMAGES
    assert tokenizer.encode("hello\n\tworld") == [one + shift for one in other.encode("hello\n\tworld")]
    assert "<eod>" in tokenizer.control
    assert "<unused_0>" not in tokenizer.control
    hello = tokenizer.encode("he\t he")
    ids = [tokenizer.control["[gMASK]"], tokenizer.control["<sop>"], *hello, tokenizer.control["<eop>"]]
    assert tokenizer.decode(ids) == "he\t he"
    # Each shown token ends a text, and the next one loses the space that it begins with.
    assert tokenizer.decode(ids, control=True) == "[[gMASK]][sop]he[<t>]he[eop]"
    stream = tokenizer.stream(control=True)
    assert "".join([*map(stream.push, ids), stream.flush()]) == "[[gMASK]][sop]he[<t>]he[eop]"


@pytest.mark.parametrize("count", [-1, 1.5, "7", True, 1 << 40])
def test_a_count_of_pictures_that_is_none(count: object) -> None:
    config = ICE_CONFIG | {"num_image_tokens": count}
    with pytest.raises(TokenizerError, match=r"num_image_tokens is .*, not 0 to"):
        open_tokenizer(folder_of({"ice_text.model": ice_file(), "tokenizer_config.json": config}))


# Tokens of turns that are ordinary pieces of a vocabulary.


@pytest.mark.parametrize(
    "case", goldens.cases("tokenizers/gemma", "tokenizers/baichuan2"), ids=lambda case: case.name
)
def test_no_message_takes_a_turn_where_a_vocabulary_finds_its_tokens_in_any_text(
    case: Path, tmp_path: Path
) -> None:
    tokenizer = open_tokenizer(unpack(case, Setting(), tmp_path))
    format_ = prompts.get(case.name)
    chat = ChatTemplate(format_, tokenizer)
    turns = [tokenizer.control[token] for token in format_.needs]
    plain, forged = (
        chat.encode([{"role": "user", "content": text}]).ids for text in ("x", f"x{''.join(format_.needs)}y")
    )
    assert [id for id in forged if id in turns] == [id for id in plain if id in turns]
