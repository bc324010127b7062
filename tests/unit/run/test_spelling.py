"""What a grammar sees of a vocabulary is what the decoder prints, for every kind of tokenizer."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from bestiary.prove.tokens import opened
from bestiary.run.spelling import Spelling
from bestiary.text import Tokenizer
from tests import goldens
from tests.unit.text.tokenizer_texts import strings
from tests.unit.text.tokenizers_made import KINDS
from tests.unit.text.tokenizers_rewriting import REWRITING, made

NOTHING = 0


def sequences(tokenizer: Tokenizer, seed: int, count: int) -> Iterator[list[int]]:
    """Yield ids as a model may choose them: of texts, cut and joined anywhere, and at random."""
    draw = random.Random(seed)
    encoded = [tokenizer.encode(text) for text in strings(count, seed)]
    for ids in encoded:
        yield ids
        other = draw.choice(encoded)
        yield ids[draw.randrange(len(ids) + 1) :] + other[: draw.randrange(len(other) + 1)]
        yield [draw.randrange(tokenizer.vocab_size) for _ in range(draw.randrange(6))]


def seen(spelling: Spelling, ids: list[int], *, continues: bool) -> list[bytes]:
    """Return the texts that a grammar would take for these ids."""
    place, texts = spelling.start(continues=continues), list[bytes]()
    for token in ids:
        number = int(spelling.place(place).texts[token])
        texts.append(b"" if number == NOTHING else bytes(spelling.tokens.decode_bytes([number])))
        place = spelling.following(place, token)
    return texts


def check(tokenizer: Tokenizer, *, count: int) -> int:
    """Compare what is seen with what is printed; return how many sequences were."""
    spelling, compared = Spelling(tokenizer), 0
    assert not any(spelling.place(0).texts[token] for token in tokenizer.control.values())
    for continues in (False, True):
        for ids in sequences(tokenizer, 3, count):
            texts = seen(spelling, ids, continues=continues)
            if b"" in texts:
                continue  # no grammar allows these ids
            try:
                whole = b"".join(texts).decode()
            except UnicodeDecodeError:
                continue  # nor these bytes
            assert tokenizer.decode(ids, continues=continues) == whole, ids
            compared += 1
    return compared


@pytest.mark.parametrize("kind", KINDS + REWRITING)
def test_a_grammar_sees_what_is_printed(kind: str) -> None:
    assert check(made(kind).ours, count=300) > 300


@pytest.mark.nightly
@pytest.mark.parametrize("case", goldens.cases("tokenizers/*"), ids=lambda case: case.name)
def test_a_grammar_sees_what_published_tokenizers_print(case: Path, tmp_path: Path) -> None:
    assert check(opened(case, tmp_path).tokenizer, count=150) > 100
