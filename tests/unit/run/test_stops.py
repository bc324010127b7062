"""Stop strings: any cut of the text into pieces gives what a search over the whole text gives."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from bestiary.run.stops import StopStrings

# Two letters, so that stop strings overlap themselves and each other all the time.
letters = st.text("ab", max_size=40)
stops = st.lists(st.text("ab", min_size=1, max_size=6), max_size=4)


def brute(text: str, stops: list[str]) -> str:
    """The text before the first stop string to be completed, the longest if several are."""
    for end in range(1, len(text) + 1):
        lengths = [len(stop) for stop in stops if text[:end].endswith(stop)]
        if lengths:
            return text[: end - max(lengths)]
    return text


def cut(text: str, places: list[int]) -> list[str]:
    at = sorted({0, len(text), *(place for place in places if place < len(text))})
    return [text[a:b] for a, b in itertools.pairwise(at)]


@given(letters, stops, st.lists(st.integers(0, 40)))
def test_pieces_give_what_the_whole_gives(text: str, stops: list[str], places: list[int]) -> None:
    scanner, shown, wanted = StopStrings(stops), "", brute(text, stops)
    for piece in cut(text, places):
        part, hit = scanner.push(piece)
        shown += part
        assert wanted.startswith(shown)  # nothing is shown that must be taken back
        if hit:
            assert shown == wanted
            assert shown != text
            return
    assert shown + scanner.flush() == wanted == text


@given(letters, stops)
def test_no_more_is_held_back_than_may_be_a_stop_string(text: str, stops: list[str]) -> None:
    scanner, shown = StopStrings(stops), ""
    for end, character in enumerate(text, 1):
        part, hit = scanner.push(character)
        shown += part
        if hit:
            return
        held = text[len(shown) : end]
        assert not held or any(stop.startswith(held) and stop != held for stop in stops)


def test_without_stop_strings_nothing_is_held_back() -> None:
    scanner = StopStrings([])
    assert scanner.push("abc") == ("abc", False)
    assert scanner.flush() == ""
