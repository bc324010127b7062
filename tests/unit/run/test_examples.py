"""Every example runs, over a tiny random model always, and over the default one where it is here."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.sources import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

# What each says with the default model.
SAID = {
    "chat": "The capital of France is Paris.",
    "conversation": "of them known before",
    "forged_turn": "['<|im_start|>', '<|im_end|>', '<|im_start|>', '<|im_end|>', '<|im_start|>']",
    "logits": "most likely next: ' dog'",
    "logprobs": "' Berlin' ",
    "perplexity": "The cat sat on the mat and purred.",
    "several_answers": "2: ...",
    "stream": "\n(",
}


Run = Callable[[Path, Path], str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs an example with a model as its argument, and returns what it prints."""

    def run(example: Path, model: Path) -> str:
        monkeypatch.setattr(sys, "argv", [str(example), str(model)])
        runpy.run_path(str(example), run_name="__main__")
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return run


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_an_example_runs(example: Path, folder: Path, run: Run) -> None:
    assert run(example, folder).strip()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_an_example_says_what_it_should(example: Path, default_model: Path, run: Run) -> None:
    assert SAID[example.stem] in run(example, default_model)


def test_examples_are_short_and_say_what_they_show() -> None:
    assert {example.stem for example in EXAMPLES} == SAID.keys()
    for example in EXAMPLES:
        lines = example.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 40
        assert lines[0].startswith('"""')
