"""Server-sent events: the standard's examples, and every way to cut a stream."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestiary.run.hosted import events
from bestiary.run.hosted.events import Event, Events

STREAM = (
    b"\xef\xbb\xbf: kept open\r\n\r\n"
    b"data: first\rdata:  second\r\r"
    b'event: error\r\nid: 7\r\nretry: 10\r\ndata:{"a": "\xe4\xbd\xa0"}\r\n\r\n'
    b"data\n\n"
    b"unknown: field\n\n"
    b"data: no line behind it"
)
FOUND = [
    Event(b"first\n second"),
    Event(b'{"a": "\xe4\xbd\xa0"}', "error"),
    Event(b""),
    Event(b"no line behind it"),
]


def _read(packets: list[bytes]) -> list[Event]:
    reader = Events()
    return [event for packet in packets for event in reader.push(packet)] + list(reader.flush())


def test_a_whole_stream() -> None:
    assert _read([STREAM]) == FOUND


def test_cut_at_every_byte() -> None:
    assert _read([STREAM[i : i + 1] for i in range(len(STREAM))]) == FOUND
    for i in range(len(STREAM)):
        assert _read([STREAM[:i], STREAM[i:]]) == FOUND


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_cut_anywhere(places: list[int]) -> None:
    edges = [0, *sorted(places), len(STREAM)]
    assert _read([STREAM[a:b] for a, b in itertools.pairwise(edges)]) == FOUND


def test_an_event_is_bounded_and_comments_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST_BYTES", 100)
    assert _read([b": still here\n" * 50, b"data: x\n\n"] * 5) == [Event(b"x")] * 5
    for endless in (b"data: " + b"x" * 200, b"data: x\n" * 20, b"id: x\n" * 20):
        with pytest.raises(ValueError, match="more than 100 bytes"):
            _read([endless])
