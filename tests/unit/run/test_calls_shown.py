"""What calls are made of is shown in an answer's text, and in no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from bestiary.errors import RequestError
from bestiary.run.asking import Asker, Facts
from bestiary.run.room import Room
from bestiary.run.vocabulary import Rules
from bestiary.text import prompts
from bestiary.text.chat import ChatTemplate
from bestiary.text.tokenizer import open_tokenizer

MESSAGES = [{"role": "user", "content": "Wie wird das Wetter in Köln?"}]
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "Search", "parameters": {"properties": {"query": {}}}}}
]
# format, what a model writes with control tokens in it, the text with tools and without
CASES = [
    (
        "internlm2",
        'Ja<|action_start|><|plugin|>\n{"name": "Search"}',
        'Ja<|action_start|><|plugin|>\n{"name": "Search"}',
        'Ja\n{"name": "Search"}',
    ),
    ("chatglm3", "\n ö<|assistant|>Search\nx", "\n ö<|assistant|>Search\nx", "\n öSearch\nx"),
    ("moss-plugin", "I look.<eot>\n<|Commands|>: None", "I look.<eot>\n<|Commands|>: None", None),
    ("qwen", "Thought: ja<|endoftext|>", "Thought: ja", "Thought: ja"),
]


def asker(folder: Path, name: str) -> Asker:
    """Return an asker over a byte-level tokenizer that has the control tokens of a format."""
    format_ = prompts.get(name)
    vocab = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([*format_.needs, "<|endoftext|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    opened = open_tokenizer(folder)
    facts = Facts("tiny", opened.vocab_size, frozenset(), Rules(), Room(512, None))
    return Asker(opened, ChatTemplate(format_, opened), facts)


@pytest.mark.parametrize(("name", "written", "shown", "plain"), CASES, ids=[case[0] for case in CASES])
def test_marks_of_calls_are_shown(
    tmp_path: Path, name: str, written: str, shown: str, plain: str | None
) -> None:
    made = asker(tmp_path, name)
    ids = made.tokenizer.encode(written, control=True)
    assert made.vocabulary(made.turn(MESSAGES, TOOLS)).text(ids) == shown
    if plain is not None:
        assert made.vocabulary(made.turn(MESSAGES)).text(ids) == plain


def test_moss_is_told_of_the_tools_that_it_knows(tmp_path: Path) -> None:
    template = asker(tmp_path, "moss-plugin").template
    assert template is not None
    by_value = template.encode(MESSAGES, values={"web_search": "enabled. API: Search(query)"})
    assert template.encode(MESSAGES, tools=TOOLS).text == by_value.text
    call = {"id": "1", "type": "function", "function": {"name": "Search", "arguments": {"query": "Köln"}}}
    asked: list[dict[str, Any]] = [
        *MESSAGES,
        {"role": "assistant", "content": "Ich sehe nach.", "tool_calls": [call]},
    ]
    told = template.encode([*asked, {"role": "tool", "content": "Regen."}], tools=TOOLS).text
    thought = '<|Inner Thoughts|>: Ich sehe nach.<eot>\n<|Commands|>: Search("Köln")<eoc>\n'
    assert told.endswith(f"{thought}<|Results|>:\nRegen.\n<eor><|MOSS|>:")
    with pytest.raises(RequestError, match=r"weather.*Search, Calculate, Solve, Text2Image"):
        template.encode(MESSAGES, tools=[{"type": "function", "function": {"name": "weather"}}])
