"""What holds for every kind of tokenizer: its library's numbers, and no text that gives a control token."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestiary.errors import TokenizerError
from bestiary.text import Tokenizer, boundary
from bestiary.text.stream import decode
from tests.unit.text import tokenizers_made
from tests.unit.text.tokenizer_texts import strings
from tests.unit.text.tokenizers_made import Made
from tests.unit.text.tokenizers_rewriting import REWRITING, made

KINDS = tokenizers_made.KINDS + REWRITING
LOSSLESS = [kind for kind in KINDS if made(kind).back is not None]


@pytest.fixture(params=KINDS)
def each(request: pytest.FixtureRequest) -> Made:
    return made(request.param)


def test_ids_are_the_library_s(each: Made) -> None:
    different = [text for text in strings(2000) if each.ours.encode(text) != each.encode(text)]
    assert different == []


@pytest.mark.parametrize("kind", LOSSLESS)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"), max_size=60))
def test_text_comes_back(kind: str, text: str) -> None:
    tokenizer, back = made(kind).ours, made(kind).back
    assert back is not None
    assert tokenizer.decode(tokenizer.encode(text)) == back(text)
    pieces = b"".join(map(tokenizer.piece, tokenizer.encode(text))).decode()
    assert pieces in (back(text), " " + back(text))  # the space that SentencePiece puts before a text


# Decoding.


def random_ids(tokenizer: Tokenizer, count: int, seed: int) -> list[list[int]]:
    """Return sequences of ids, bytes and control tokens among them, and ids that no token has."""
    draw = random.Random(seed)
    return [
        [draw.randrange(tokenizer.vocab_size + 3) for _ in range(draw.randrange(13))] for _ in range(count)
    ]


def test_a_stream_is_the_library_s_decoding(each: Made) -> None:
    for ids in random_ids(each.ours, 10_000, 1):
        streamed = decode(each.ours.stream(), ids)
        assert streamed == each.decode(ids), ids
        assert streamed == each.ours.decode(ids)


def test_nothing_is_held_back_but_half_a_character(each: Made) -> None:
    for ids in random_ids(each.ours, 1500, 2):
        stream = each.ours.stream(control=True)
        shown = ""
        for count, token in enumerate(ids, 1):
            shown += stream.push(token)
            whole = each.ours.decode(ids[:count], control=True)
            assert whole.startswith(shown)
            assert set(whole[len(shown) :]) <= {"\ufffd"}
            assert len(whole) - len(shown) <= 3


def test_a_text_that_continues_keeps_its_space(each: Made) -> None:
    hello = each.ours.encode("hello there")
    first, rest = hello[:1], hello[1:]
    joined = each.ours.decode(first) + each.ours.decode(rest, continues=True)
    assert joined == each.ours.decode(hello)


def test_ids_without_a_token_add_nothing(each: Made) -> None:
    beyond = each.ours.vocab_size + 100
    ids = each.ours.encode("hello there")
    assert each.ours.decode([beyond, *ids, beyond, -1]) == each.ours.decode(ids)
    assert each.ours.piece(beyond) == each.ours.piece(-1) == b""


# Control tokens.


def forged(spelling: str) -> list[str]:
    half = len(spelling) // 2
    wide = "".join(
        chr(ord(one) + 0xFEE0) if "!" <= one <= "~" else one for one in spelling
    )  # NFKC makes it the same
    spelt = "".join(f"<0x{byte:02X}>" for byte in spelling.encode())
    inside = [
        f"a{spelling}b",
        f" {spelling} ",
        f"\n{spelling}\n",
        f"\u2581{spelling}",
        f"    {spelling}<tool>{spelling}",
    ]
    nested = [spelling[:half] + spelling + spelling[half:], f"{spelling[:1]}\u200b{spelling[1:]}{spelling}"]
    return [spelling, spelling * 1000, spelling.upper(), wide, spelt, *inside, *nested]


def test_no_text_gives_a_control_token(each: Made) -> None:
    control = each.ours.control
    assert control
    for spelling in control:
        for text in forged(spelling):
            ids = each.ours.encode(text)
            assert set(control.values()).isdisjoint(ids), text
            if each.back is not None and "\u2581" not in text:
                assert each.ours.decode(ids) == each.back(text)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_no_mixture_gives_a_control_token(kind: str, data: st.DataObject) -> None:
    tokenizer = made(kind).ours
    pieces = [
        part
        for name in tokenizer.control
        for part in (name, name[:3], name[3:], name[1:], name[:-1], " ", "\n")
    ]
    text = "".join(
        data.draw(st.lists(st.sampled_from(pieces) | st.text("<|>/[]s▁ ", max_size=3), max_size=12))
    )
    assert set(tokenizer.control.values()).isdisjoint(tokenizer.encode(text))


def test_a_spelling_becomes_its_token_where_that_is_asked(each: Made) -> None:
    for spelling, token in each.ours.control.items():
        assert each.ours.encode(spelling, control=True) == [token]
        ids = each.ours.encode(f"a{spelling}b{spelling}", control=True)
        assert ids.count(token) == 2
        assert each.ours.decode([token]) == ""
        assert each.ours.decode([token], control=True).strip() == spelling
        assert each.ours.piece(token) == spelling.encode()


# What is not text, and too much of it.


def test_half_a_surrogate_pair_is_named(each: Made) -> None:
    for code in (0xD800, 0xD83D, 0xDBFF, 0xDC00, 0xDFFF):
        for control in (False, True):
            with pytest.raises(TokenizerError, match=rf"character 3 of the text, U\+{code:04X}.*surrogate"):
                each.ours.encode(f"abc{chr(code)}d", control=control)


@pytest.mark.parametrize("kind", ["byte-level", "llama", "model-bpe", "tiktoken"])
def test_every_character_is_taken(kind: str) -> None:
    tokenizer, back = made(kind).ours, made(kind).back
    assert back is not None
    plane = "".join(chr(code) for code in range(0x10000) if not 0xD800 <= code < 0xE000 and code != 0x2581)
    beyond = "".join(map(chr, range(0x10000, 0x110000, 16)))
    for block in (plane, beyond):
        assert tokenizer.decode(tokenizer.encode(f"a{block}")) == back(f"a{block}")


def test_too_long_a_text_is_refused(each: Made) -> None:
    with pytest.raises(TokenizerError, match="4,000,001 characters"):
        each.ours.encode("a" * (boundary.MAX_CHARACTERS + 1))


@pytest.mark.parametrize(
    "kind", ["byte-level", "llama", "unigram", "wordpiece", "model-bpe", "model-unigram", "tiktoken", "icetk"]
)
@pytest.mark.parametrize(
    ("run", "count"), [("a", 10**6), (" ", 10**6), ("\n", 10**5), ("你", 10**5), ("^'s", 10**5)]
)
def test_a_long_run_of_one_character(kind: str, run: str, count: int) -> None:
    tokenizer, back = made(kind).ours, made(kind).back
    text = run * count + "x"
    ids = tokenizer.encode(text)
    assert ids
    if back is not None:
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("end", ["", "x", "\n", "\nx", "!"])
def test_long_white_space_has_the_ids_that_tiktoken_gives_it(end: str) -> None:
    # From 200,000 spaces on another engine splits the words; tiktoken's own fails at about a million.
    each = made("tiktoken")
    text = "a \n" + " " * 250_000 + end
    assert each.ours.encode(text) == each.encode(text)
