"""What families read from whole prompts."""

from __future__ import annotations

import math

import pytest
import torch

from bestiary.context import Full
from bestiary.errors import RequestError
from bestiary.families.qwen import begin
from bestiary.families.yuan import cut
from bestiary.load import load
from tests.goldens import STORED, hints

END = 9


@pytest.mark.parametrize("trained", [2, 12, 16, 2048])
def test_the_stretch_is_the_authors(trained: int) -> None:
    """At every length around each doubling: 2 ** ceil(log2(length / trained) + 1) - 1, at least 1."""
    for length in {n * trained + more for n in (1, 2, 4, 8) for more in (-1, 0, 1)} | {1, 3 * trained}:
        want = max(2 ** math.ceil(math.log2(length / trained) + 1) - 1, 1)
        prompt = begin(torch.zeros(1, length, dtype=torch.int64), trained=trained)
        assert (prompt.length.item(), prompt.stretch.item()) == (length, want)  # type: ignore[union-attr]


def test_padding_does_not_stretch() -> None:
    seen = torch.tensor([[False] * 3 + [True] * 4, [True] * 7])
    assert begin(torch.zeros(2, 7, dtype=torch.int64), seen, trained=4).stretch.tolist() == [[1], [3]]  # type: ignore[union-attr]


def test_an_end_hides_itself_and_all_before() -> None:
    tokens = torch.tensor([[1, END, 2, 3, END, END], [END, 1, 2, 3, 4, END], [1, 2, 3, 4, 5, 6]])
    prompt = cut(tokens, end=END)
    assert prompt.since is not None
    want = [[0, 0, 2, 2, 2, 5, 6], [0, 1, 1, 1, 1, 1, 6], [0, 0, 0, 0, 0, 0, 0]]
    assert prompt.since.tolist() == want  # the last number is for what follows the prompt
    later = prompt.first_seen(torch.tensor([[6, 40], [6, 40], [6, 40]]))
    assert later is not None
    assert later.tolist() == [[6, 6], [6, 6], [0, 0]]


def test_an_end_that_is_padding_hides_nothing() -> None:
    """Positions count from the first real token."""
    tokens = torch.tensor([[END, END, 1, END, 2], [1, END, 2, END, END]])
    seen = torch.tensor([[False, False, True, True, True], [True, True, True, False, False]])
    prompt = cut(tokens, seen, end=END)
    assert prompt.since is not None
    assert prompt.since[:, :4].tolist() == [[0, 0, 2, 2], [0, 0, 2, 2]]
    assert prompt.length.tolist() == [[3], [3]]


@pytest.mark.parametrize("case", ["qwen-7b-long", "chatglm1-6b", "glm130b"])
def test_a_context_without_the_prompt_is_refused(case: str) -> None:
    """A rotary base or a place that was not read would be a guess."""
    model, tokens = load(STORED / case, config=hints(STORED / case)).model, torch.tensor([[3, 4, 5]])
    with pytest.raises(RequestError, match=r"give the context prompt=model\.prompt\(tokens\)"):
        model(tokens, Full.of(tokens))
