"""Streaming: each step against the decoder of the `tokenizers` library that it stands for."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
import sentencepiece
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders

from bestiary.text import stream
from tests.unit.text.tokenizers_made import by_rule

CHARACTERS = "▁ab.?!,' Ġ##né你<0xE4></w>0x"
TOKENS = st.one_of(
    st.text(CHARACTERS, min_size=1, max_size=6),
    st.sampled_from(
        [
            "▁",
            "▁▁",
            "n't",
            "'s",
            "'",
            "do",
            "not",
            ".",
            "##ing",
            "##",
            "</w>",
            "a</w>",
            "Ġthe",
            "âĢ",
            "ï",
            "¿½",
        ]
    ),
)
STEPS: dict[str, tuple[Callable[[], list[stream.Step]], object]] = {
    "ByteLevel": (lambda: [stream.ByteLevel()], decoders.ByteLevel()),
    "Replace": (lambda: [stream.Replace("▁", " ")], decoders.Replace("▁", " ")),
    "Metaspace": (lambda: [stream.Metaspace("▁", drop_first=True)], decoders.Metaspace()),
    "Metaspace never": (
        lambda: [stream.Metaspace("▁", drop_first=False)],
        decoders.Metaspace(prepend_scheme="never"),
    ),
    "WordPiece": (lambda: [stream.WordPiece("##", clean=False, first=True)], decoders.WordPiece("##", False)),
    "WordPiece clean": (
        lambda: [stream.WordPiece("##", clean=True, first=True)],
        decoders.WordPiece("##", True),
    ),
    "BPEDecoder": (lambda: [stream.WordEnd("</w>")], decoders.BPEDecoder("</w>")),
    "Strip after Fuse": (
        lambda: [stream.StripStart(" ", 2)],
        decoders.Sequence([decoders.Fuse(), decoders.Strip(" ", 2, 0)]),
    ),
}


def streamed(steps: list[stream.Step], tokens: Sequence[str]) -> str:
    """Return what a chain gives for tokens, one at a time."""
    return stream.decode(stream.Chain(lambda number: tokens[number], steps), range(len(tokens)))


@pytest.mark.parametrize("name", STEPS)
@given(tokens=st.lists(TOKENS, max_size=12))
def test_a_step_is_the_library_s_decoder(name: str, tokens: list[str]) -> None:
    make, library = STEPS[name]
    assert streamed(make(), tokens) == library.decode(tokens)  # type: ignore[attr-defined]


BYTE_TOKENS = [f"<0x{byte:02X}>" for text in ("é你🙂\n", "\ufffd") for byte in text.encode()] + [
    "<0x80>",
    "<0xFF>",
]


@given(tokens=st.lists(st.sampled_from([*BYTE_TOKENS, "▁a", "b", "<0x4>", "<0xGG>"]), max_size=12))
def test_byte_fallback_is_the_library_s_where_bytes_are_text(tokens: list[str]) -> None:
    expected = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()]).decode(tokens)
    found = streamed([stream.ByteFallback()], tokens)
    if "\ufffd" not in expected:
        assert found == expected
    # Where they are not, SentencePiece's rule holds: each byte that is part of no character is one U+FFFD.
    assert found == "".join(by_rule(tokens))


def test_a_newline_written_as_a_byte_is_out_at_once() -> None:
    chain = stream.Chain(["<0x0A>", "<0xE4>", "<0xBD>", "<0xA0>"].__getitem__, [stream.ByteFallback()])
    assert [chain.push(number) for number in range(4)] == ["\n", "", "", "你"]
    assert chain.flush() == ""


@given(st.binary(max_size=40), st.lists(st.integers(1, 5), min_size=1))
def test_bytes_are_read_as_python_reads_them(data: bytes, sizes: list[int]) -> None:
    parts: list[bytes] = []
    at = 0
    while at < len(data):
        size = sizes[len(parts) % len(sizes)]
        parts.append(data[at : at + size])
        at += size
    assert stream.decode(stream.Bytes(parts.__getitem__), range(len(parts))) == data.decode(
        "utf-8", "replace"
    )


def test_half_a_character_is_held_back_and_shown_in_the_end() -> None:
    decoder = stream.Bytes([b"a\xf0\x9f", b"\x99", b"\x82b", b"\xe4\xbd"].__getitem__)
    assert [decoder.push(number) for number in range(4)] == ["a", "", "🙂b", ""]
    assert decoder.flush() == "\ufffd"


def test_gpt2_s_alphabet_is_the_library_s() -> None:
    assert sorted(stream.BYTE_OF) == sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    library = decoders.ByteLevel()
    for character, byte in stream.BYTE_OF.items():
        if byte < 128:
            assert library.decode([character]) == chr(byte)
    assert stream.visible_to_bytes("Ġ你") == "Ġ你".encode()


def test_work_does_not_grow_with_the_text() -> None:
    # Decoding all again for each token would take 200 million reads.
    reads = 0

    def piece(token: int) -> bytes:
        nonlocal reads
        reads += 1
        return bytes([token])

    draw = random.Random(0)
    stream.decode(stream.Bytes(piece), [draw.randrange(256) for _ in range(20_000)])
    assert reads == 20_000


def test_sentencepiece_is_the_library_this_project_asks_for() -> None:
    # 0.2.1 bounds what a crafted model reads (CVE-2026-1260).
    assert tuple(map(int, sentencepiece.__version__.split(".")[:3])) >= (0, 2, 1)
