"""Prompts of prefix language models that are longer than what is computed at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bestiary.context import Full
from bestiary.errors import RequestError
from bestiary.load import load
from bestiary.models import Decoder
from bestiary.run import score, session
from tests.goldens import STORED, hints

NAMES = {"chatglm1-6b": (201, 204), "glm130b": (221, 224)}  # the ids of [gMASK] and <sop>


def ids(name: str, text: int, filled: int) -> list[int]:
    words = torch.randint(5, 200, (text + filled,)).tolist()
    return [*words[:text], *NAMES[name], *words[text:]]


def model(name: str) -> Decoder:
    return load(STORED / name, config=hints(STORED / name)).decoder


def whole(decoder: Decoder, prompt: list[int]) -> Tensor:
    tokens = torch.tensor([prompt])
    with torch.inference_mode():
        return decoder(tokens, Full.of(tokens, None, decoder.prompt(tokens)))[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_session_computes_a_prefix_at_once(name: str) -> None:
    decoder = model(name)
    seen = session.Session(decoder, 2048)
    first = ids(name, session.CHUNK + 70, session.CHUNK + 3)
    assert (seen.prefill(first) - whole(decoder, first)[-1]).abs().max() <= 1e-4
    longer = [*first, 60, 61]
    seen.feed([60])
    assert (seen.feed([61]) - whole(decoder, longer)[-1]).abs().max() <= 1e-4
    second = [7, *first]  # another prefix: nothing that was computed holds
    assert (seen.prefill(second) - whole(decoder, second)[-1]).abs().max() <= 1e-4


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", [20, score.ROWS - 3, score.ROWS + 60])
def test_what_fills_the_blank_is_scored(name: str, text: int) -> None:
    decoder, prompt = model(name), ids(name, text, score.ROWS + 9)
    got = score.log_likelihoods(decoder, prompt)
    sure = whole(decoder, prompt).double().log_softmax(-1)
    start = text + 1  # of <sop>, from which on each token is a guess
    want = sure[start:-1].gather(-1, torch.tensor(prompt[start + 1 :])[:, None])[:, 0]
    assert got.shape == want.shape == (score.ROWS + 9,)
    assert (got - want).abs().max() <= 1e-4


def test_a_prompt_with_nothing_filled_in_is_refused() -> None:
    with pytest.raises(RequestError, match="leaves nothing to score"):
        score.log_likelihoods(model("chatglm1-6b"), ids("chatglm1-6b", 9, 0))
