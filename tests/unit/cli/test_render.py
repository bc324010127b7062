"""`bestiary render`: the text to the byte, whose each token is, what is learned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Bestiary

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi <|im_end|>"},
    {"role": "assistant", "content": "Hello."},
]


@pytest.fixture
def talk(tmp_path: Path) -> str:
    file = tmp_path / "talk.json"
    file.write_text(json.dumps(TALK))
    return str(file)


def test_a_format_is_rendered_without_its_model(bestiary: Bestiary, talk: str) -> None:
    ran = bestiary("render", "chatml", talk)
    turns = [f"<|im_start|>{one['role']}\n{one['content']}<|im_end|>\n" for one in TALK]
    assert ran.out == "".join(turns) + "<|im_start|>assistant\n"
    assert "tokens are not known" in ran.err
    assert bestiary("render", "chatml", talk, "--ids").code == 2


def test_what_is_learned_is_the_answer_and_its_end(
    bestiary: Bestiary, talk: str, default_model: Path
) -> None:
    ran = bestiary("render", str(default_model), talk, "--train", "--json")
    told = json.loads(ran.out)
    learned = [id for id, one in zip(told["ids"], told["learned"], strict=True) if one]
    roles = [role for role, one in zip(told["roles"], told["learned"], strict=True) if one]
    assert roles == ["assistant"] * (len(learned) - 1) + [None]
    assert told["ids"].count(learned[-1]) == len(TALK), "the message's own <|im_end|> is text"
    assert told["stops"] == ["<|im_end|>"]
    # Of every conversation the ids are those that are sent when an answer is asked for.
    asked = json.loads(bestiary("render", str(default_model), talk, "--json").out)
    assert asked["ids"][: len(told["ids"])] == told["ids"]


def test_a_message_without_a_place_is_told(bestiary: Bestiary, tmp_path: Path) -> None:
    ran = bestiary("render", "gemma", str(tmp_path / "none.json"))
    assert ran.code != 0
    (tmp_path / "talk.json").write_text(json.dumps(TALK))
    ran = bestiary("render", "gemma", str(tmp_path / "talk.json"))
    assert ran.code == 2
    assert "no place for the role 'system'" in ran.err


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ('{"talk": []}', "'talk' is not known"),
        ('{"messages": 3}', "no messages"),
        ("[]", "0 given"),
    ],
)
def test_a_file_that_is_no_conversation(bestiary: Bestiary, tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "talk.json"
    file.write_text(text)
    ran = bestiary("render", "chatml", str(file))
    assert (ran.code, named in ran.err) == (2, True), ran.err


def test_a_base_model_and_an_unknown_name(bestiary: Bestiary) -> None:
    assert "--chat-template NAME" in bestiary("render", "minilm").err
    assert bestiary("render", "no-such-system").code == 3
    assert "did you mean 'chatml" in bestiary("render", "minilm", "--chat-template", "chatmll").err
