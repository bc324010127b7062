"""Published templates, where they are at hand: formats say what they say, and prompts are as published."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from bestiary.errors import RequestError
from bestiary.text import prompts
from bestiary.text.chat import ChatTemplate
from bestiary.text.jinja import Sandbox
from bestiary.text.templates import open_template
from bestiary.text.tokenizer import open_tokenizer
from bestiary.text.tracing import joined

from .chat_models import NoSandbox, conversations, make
from .chat_styles import STYLES


def rows(goldens: Path) -> list[dict[str, Any]]:
    """Return the reference prompts that were made with a Jinja template."""
    files = sorted((goldens / "prompts").glob("*.json"))
    found = [row for file in files for row in json.loads(file.read_text())]
    return [row for row in found if "chat_template" in row.get("options", {}) and row["messages"]]


def test_formats_say_what_published_templates_say(goldens: Path) -> None:
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    names: set[str] = set()
    with Sandbox() as sandbox:
        for source in sorted({row["options"]["chat_template"] for row in rows(goldens)}):
            known = prompts.find(source)
            if known is None:
                continue
            names.add(known.name)
            for messages, generation in itertools.product(conversations(STYLES["chatml"], 60), (True, False)):
                for talk in filter(known.fits, filter(None, (messages, messages[1:]))):
                    pieces = known.render(talk, generation=generation, tokens=tokens)
                    variables = {"messages": talk, "add_generation_prompt": generation, **tokens}
                    assert pieces is not None
                    assert joined(pieces) == sandbox.render(source, variables), known.name
    assert len(names) >= 9


# Which tokens the references had is seen in what they wrote.
ENDS = (
    ("<s>", "</s>"),
    ("<bos>", "<eos>"),
    ("<|begin_of_text|>", "<|end_of_text|>"),
    ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
)


def test_prompts_are_the_published(goldens: Path, tmp_path: Path) -> None:
    tokenizer, checked = make(STYLES["mistral"], "byte-level", tmp_path).tokenizer, 0
    for row in rows(goldens):
        ends = next((pair for pair in ENDS if row.get("text", "").startswith(pair[0])), ENDS[0])
        tokens = dict(zip(("bos_token", "eos_token"), ends, strict=True))
        chat = ChatTemplate(row["options"]["chat_template"], tokenizer, tokens=tokens)
        generation = row["options"]["add_generation_prompt"]
        if row.get("raises"):
            with pytest.raises(RequestError):
                chat.encode(row["messages"], generation=generation)
        else:
            assert chat.encode(row["messages"], generation=generation).text == row["text"], row["checkpoint"]
        checked += 1
    assert checked > 100


def test_the_default_models_template_does_not_run(default_model: Path) -> None:
    tokenizer = open_tokenizer(default_model)
    chat = open_template(default_model, tokenizer, sandbox=NoSandbox())
    assert chat is not None
    assert chat.name == "chatml-smollm2"
    prompt = chat.encode([{"role": "user", "content": "Hi"}])
    assert prompt.text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert prompt.ids == tokenizer.encode(prompt.text, control=True)
    assert chat.stops == {tokenizer.control["<|im_end|>"]}
    # The same template with another hash, so that it runs.
    other = ChatTemplate(chat.source + "{# #}", tokenizer)
    for messages in conversations(STYLES["chatml"], 30):
        assert chat.encode(messages).ids == other.encode(messages).ids
