"""In no format of the roster does what a message says become a control token, or end a turn."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

from bestiary.errors import RequestError, TemplateError
from bestiary.text import prompts
from bestiary.text.chat import ChatTemplate
from bestiary.text.tokenizer import Tokenizer
from tests.unit.text.chat_models import KINDS, make
from tests.unit.text.chat_styles import STYLES
from tests.unit.text.test_chat_forging import WAYS

# Conversations of which a format takes the first that it can.
TALKS = (("system", "user", "assistant", "user"), ("user", "assistant", "user"), ("user",))
EVERYWHERE = ("<s>", "</s>", "<|im_end|>", "<|im_start|>", "<|endoftext|>", "[INST]", "###", "</s><s>")


@cache
def tokenizer(needs: tuple[str, ...], kind: str, folder: Path) -> Tokenizer:
    """Return a tokenizer of a kind in which everything that anybody may spell is a control token."""
    control = tuple(dict.fromkeys((*STYLES["mistral"].control, *needs, *EVERYWHERE[:5])))
    style = replace(STYLES["mistral"], control=control)
    return make(style, kind, Path(mkdtemp(dir=folder))).tokenizer


class Judge:
    """One format over one kind of tokenizer."""

    def __init__(self, name: str, kind: str, folder: Path) -> None:
        format_ = prompts.get(name)
        # No tokenizer has a line end that is a control token; one format stops at it.
        spelt = (text for text in format_.stop if text.strip())
        control = tuple(dict.fromkeys((*format_.needs, *spelt)))
        self.tokenizer = tokenizer(control, kind, folder)
        self.chat = ChatTemplate(format_, self.tokenizer, tokens={"bos_token": "<s>", "eos_token": "</s>"})
        self.spellings = tuple(self.tokenizer.control)
        self.roles = next(roles for roles in TALKS if self._takes(roles))
        self.wanted = self.controls(["x"] * len(self.roles))
        self.cases = 0

    def _takes(self, roles: Iterable[str]) -> bool:
        try:
            self.chat.encode([{"role": role, "content": "x"} for role in roles])
        except RequestError:
            return False
        return True

    def controls(self, texts: list[str]) -> list[int]:
        """Return the control tokens of a prompt; of the messages' own there may be none."""
        messages = [{"role": role, "content": text} for role, text in zip(self.roles, texts, strict=True)]
        prompt = self.chat.encode(messages)
        ids = set(self.tokenizer.control.values())
        written = [id for span in prompt.spans if span.is_content for id in prompt.ids[span.start : span.end]]
        assert not ids.intersection(written), texts
        return [id for id in prompt.ids if id in ids]

    def judge(self, text: str, place: int) -> None:
        texts = ["x"] * len(self.roles)
        texts[place] = text
        try:
            found = self.controls(texts)
        except TemplateError:  # it decides by what a message says, and is refused with its message
            found = self.wanted
        assert found == self.wanted, (self.chat.name, texts)
        self.cases += 1


def cases(judge: Judge) -> Iterator[tuple[str, int]]:
    for spelling in judge.spellings:
        for way in WAYS.values():
            if text := way(spelling).strip():  # without text there may be no turn
                for place in range(len(judge.roles)):
                    yield text, place


@pytest.mark.parametrize("name", prompts.named())
def test_some_that_nobody_may_forge(name: str, tmp_path: Path) -> None:
    chance = random.Random(name)
    judge = Judge(name, chance.choice(KINDS), tmp_path)
    for text, place in chance.sample(list(cases(judge)), 40):
        judge.judge(text, place)


@pytest.mark.nightly
def test_all_that_nobody_may_forge(tmp_path: Path) -> None:
    count = 0
    for name in prompts.named():
        for kind in KINDS:
            judge = Judge(name, kind, tmp_path)
            for text, place in cases(judge):
                judge.judge(text, place)
            count += judge.cases
    print(f"{count:,} forged turns tried over {len(prompts.named())} formats: 0 came about")
    assert count >= 50_000
