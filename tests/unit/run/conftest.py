"""A tiny model, the same in transformers and here, and a vocabulary of pieces that break UTF-8."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bestiary.load import load
from bestiary.models import Decoder
from bestiary.run.session import Session
from bestiary.run.vocabulary import Vocabulary
from bestiary.text.stream import Bytes
from tests import tiny

from .chatmodel import publish

CONTEXT = tiny.SIZES["max_position_embeddings"]
SIZE = tiny.SIZES["vocab_size"]
# Letters often, so that stop strings are met; words; and the bytes of ä and €, which are characters only in
# order.
PIECES = [[b"a", b"b", b"ab", b"ba ", b" b"][i % 5] for i in range(SIZE - 9)]
PIECES += [b"\xc3", b"\xa4", b"\xe2", b"\x82", b"\xac", b"\xe2\x82", b"\xc3\xa4", b"\n", b"end"]


class Pair(NamedTuple):
    """One checkpoint, opened twice."""

    model: Decoder
    reference: Any


def text_of(ids: list[int] | tuple[int, ...]) -> str:
    """What the tokens spell, decoded at once."""
    return b"".join(PIECES[i] for i in ids).decode("utf-8", "replace")


def vocabulary(size: int = SIZE, ends: frozenset[int] = frozenset()) -> Vocabulary:
    """The pieces above, decoded as tiktoken's are."""
    return Vocabulary(size, ends, lambda: Bytes(PIECES.__getitem__))


@pytest.fixture(scope="module", params=["llama"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A tiny random model, here and in transformers."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    reference = tiny.make(request.param, folder)
    reference.generation_config.eos_token_id = reference.generation_config.pad_token_id = None
    return Pair(load(folder).decoder, reference)


@pytest.fixture
def session(pair: Pair) -> Session:
    """A fresh one over the tiny model."""
    return Session(pair.model, CONTEXT)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random chat model, published whole."""
    path = tmp_path_factory.mktemp("tiny-chat")
    publish(path)
    return path
