"""Frames: what goes in comes out, whatever pieces it comes in; what is no frame is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestiary.run.params import SamplingParams
from bestiary.serve import wire

TEXT = st.text(st.characters(exclude_categories=()))
MESSAGES = st.lists(st.dictionaries(TEXT, st.integers() | TEXT | st.lists(st.integers())), max_size=5)


@given(MESSAGES, st.lists(st.integers(1, 50), max_size=30))
def test_frames_come_out_of_any_pieces(messages: list[wire.Message], cuts: list[int]) -> None:
    data = b"".join(map(wire.pack, messages))
    frames, found, place = wire.Frames(), list[wire.Message](), 0
    for cut in [*cuts, len(data)]:
        found += frames.feed(data[place : place + cut])
        place += cut
    assert found == messages


def test_a_length_past_the_limit_is_refused_before_anything_is_kept() -> None:
    with pytest.raises(wire.BrokenWireError, match="announced"):
        list(wire.Frames().feed(wire.HEADER.pack(wire.LIMIT + 1)))


@pytest.mark.parametrize("body", [b"[]", b"{", b"\xff", b"1"])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(wire.BrokenWireError):
        list(wire.Frames().feed(wire.HEADER.pack(len(body)) + body))


def test_params_are_the_same_on_the_other_side() -> None:
    from dataclasses import fields

    from bestiary.run.asking import Request
    from bestiary.serve.jobs import job_message, params_of

    params = SamplingParams(
        temperature=0.7,
        logit_bias={3: -1.5, 70: 4.0},
        stop=("a", "b"),
        n=3,
        seed=7,
        logprobs=2,
        choice=("x", "y"),
    )
    message = job_message(Request(None, [1], False, frozenset({2})), params, adapter=None, salt="")
    again = params_of(json.loads(json.dumps(message)))
    assert {f.name: getattr(again, f.name) for f in fields(again)} == {
        f.name: getattr(params, f.name) for f in fields(params)
    }
