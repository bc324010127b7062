"""OpenAI's protocol, with a host on this machine that answers rightly, wrongly, slowly or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from bestiary import HostedError, RequestError, SamplingParams
from bestiary.run.hosted.operator import HostedOutput, Piece, Request, chunks
from tests.hosts import Host, Reply, sse

from .openai_host import CHAT, COMPLETIONS, EMBEDDINGS, GREEDY, HELLO, choice, delta, opened


def test_a_chat(host: Host) -> None:
    usage = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
    host.json(CHAT, {"id": "x", "choices": [choice("Hi! 你好")], "usage": usage})
    (found,) = opened(host).chat(HELLO, GREEDY)
    assert isinstance(found, HostedOutput)
    assert (found.text, found.prompt, found.prompt_token_ids) == ("Hi! 你好", None, [])
    assert (found.prompt_tokens, found.tokens) == (11, 3)
    assert (found.outputs[0].finish_reason, found.outputs[0].token_ids) == ("stop", [])
    (asked,) = host.asked
    assert asked.path == "/v1/chat/completions"
    want = {"model": "org/m", "messages": HELLO, "temperature": 0, "top_p": 1, "max_tokens": 8}
    assert asked.body == want
    assert "Authorization" not in asked.headers


def test_a_continuation_with_everything_that_has_a_place(host: Host) -> None:
    choices = [{"index": i, "text": f" {i}", "finish_reason": "length"} for i in (1, 0)]
    host.json(COMPLETIONS, {"choices": choices})
    params = SamplingParams(
        temperature=0.5,
        top_p=0.9,
        frequency_penalty=0.1,
        presence_penalty=-0.2,
        logit_bias={7: -1.5},
        stop=["END"],
        seed=3,
        n=2,
        max_tokens=5,
    )
    (found,) = opened(host).generate("Once", params)
    assert [(one.index, one.text, one.finish_reason) for one in found.outputs] == [
        (0, " 0", "length"),
        (1, " 1", "length"),
    ]
    assert (found.prompt, found.prompt_tokens) == ("Once", None)
    assert host.asked[0].body == {
        "model": "org/m",
        "prompt": "Once",
        "temperature": 0.5,
        "top_p": 0.9,
        "frequency_penalty": 0.1,
        "presence_penalty": -0.2,
        "logit_bias": {"7": -1.5},
        "stop": ["END"],
        "seed": 3,
        "n": 2,
        "max_tokens": 5,
    }


def test_ids_and_several_prompts_go_one_by_one(host: Host) -> None:
    host.json(COMPLETIONS, {"choices": [{"index": 0, "text": "x", "finish_reason": "stop"}]})
    prompts: list[str | list[int]] = ["a", [1, 2]]
    assert len(opened(host).generate(prompts, GREEDY)) == 2
    assert [asked.body["prompt"] for asked in host.asked] == ["a", [1, 2]]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("top_k", 5),
        ("min_p", 0.1),
        ("typical_p", 0.9),
        ("repetition_penalty", 1.1),
        ("stop_token_ids", [3]),
        ("logprobs", 0),
        ("ignore_eos", True),
        ("choice", ["yes", "no"]),
        ("bad_words", ["no"]),
        ("allowed_token_ids", [1]),
        ("min_tokens", 1),
        ("no_repeat_ngram_size", 2),
        ("constraint", lambda ids: None),
    ],
)
def test_a_field_without_a_place_is_refused_by_name(host: Host, field: str, value: object) -> None:
    params = replace(GREEDY, **{field: value})  # type: ignore[arg-type]
    llm = opened(host)
    for ask in (
        lambda: llm.chat(HELLO, params),
        lambda: llm.generate("a", params),
        lambda: llm.stream("a", params),
    ):
        with pytest.raises(RequestError, match=f"^{field}=.* has no place for it"):
            ask()
    assert host.asked == []


def test_what_is_off_is_no_field(host: Host) -> None:
    host.json(CHAT, {"choices": [choice("x")]})
    off = SamplingParams(
        top_k=-1, stop=None, bad_words=None, logit_bias={}, stop_token_ids=None, max_tokens=None
    )
    opened(host).chat(HELLO, off)
    assert set(host.asked[0].body) == {"model", "messages", "temperature", "top_p"}


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([], "0 given"),
        ([{"role": "tool", "content": "x"}], "message 0: role 'tool'"),
        ([{"role": "user", "content": "x", "tool_call_id": "y"}], "message 0: tool_call_id"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "message 0: content part 0"),
        ([{"role": "user", "content": "\ud800"}], "surrogate"),
    ],
)
def test_messages_that_are_none(host: Host, messages: Any, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        opened(host).chat(messages)
    assert host.asked == []


def test_requests_that_are_refused_here(host: Host) -> None:
    llm = opened(host)
    asks: dict[str, Callable[[], object]] = {
        "tools": lambda: llm.chat(HELLO, tools=[{"name": "f"}]),
        "the prompt is empty": lambda: llm.generate(""),
        "max_tokens=None": lambda: llm.generate("a", SamplingParams(max_tokens=None)),
        "prompt_name": lambda: llm.embed("a", prompt_name="query"),
        "truncate": lambda: llm.embed("a", truncate=True),
        "normalize=True": lambda: llm.embed("a", normalize=True),
        "nothing in it": lambda: llm.embed(["a", ""]),
        "there is no text": lambda: llm.embed([]),
    }
    for says, ask in asks.items():
        with pytest.raises(RequestError, match=says):
            ask()
    assert host.asked == []


STREAM = sse(
    delta("", role="assistant"),
    delta("One, "),
    delta("你好"),
    delta(None, "stop"),
    {"choices": [], "usage": {"prompt_tokens": 3}},
    "[DONE]",
)


def _streamed(host: Host, params: SamplingParams = GREEDY) -> tuple[str, str | None]:
    found = list(opened(host).stream(HELLO, params))
    return "".join(chunk.text for chunk in found), found[-1].finish_reason


def test_a_stream_byte_by_byte(host: Host) -> None:
    packets = [STREAM[i : i + 1] for i in range(len(STREAM))]
    host.answers(CHAT, Reply(kind="text/event-stream; charset=utf-8", packets=packets))
    assert _streamed(host) == ("One, 你好", "stop")
    assert host.asked[0].body["stream"] is True


def test_a_stream_that_ends_at_every_byte(host: Host) -> None:
    """Until the reason has come, an answer is not whole, and never looks as if it were."""
    ended = STREAM.index(b'"finish_reason": "stop"') + len(b'"finish_reason": "stop"}]}')
    for end in range(1, len(STREAM), 3):
        for broken in (False, True):
            packets = [STREAM[:end]]
            host.answers(CHAT, Reply(kind="text/event-stream", packets=packets, broken=broken))
            if end >= ended + 2 or (end >= ended and not broken):
                assert _streamed(host) == ("One, 你好", "stop")
            else:
                with pytest.raises(HostedError, match=r"cut off|connection failed|something else than JSON"):
                    _streamed(host)


def test_a_stop_string_across_chunks_is_no_part_of_an_answer(host: Host) -> None:
    events = sse(delta("One E"), delta("N"), delta("D two"), delta("", "length"), "[DONE]")
    host.answers(CHAT, Reply(kind="text/event-stream", packets=[events]))
    assert _streamed(host, replace(GREEDY, stop="END")) == ("One ", "stop")
    host.answers(CHAT, Reply(kind="text/event-stream", packets=[sse(delta("One E"), delta("", "length"))]))
    assert _streamed(host, replace(GREEDY, stop="END")) == ("One E", "length")


def test_answers_side_by_side_come_one_after_the_other(host: Host) -> None:
    events = sse(
        delta("b", index=1),
        delta("a", index=0),
        delta("B", "stop", 1),
        delta("A", index=0),
        delta("", "length", 0),
    )
    host.answers(CHAT, Reply(kind="text/event-stream", packets=[events]))
    found = list(opened(host).stream(HELLO, SamplingParams(n=2)))
    assert [(chunk.index, chunk.text) for chunk in found] == [
        (0, "a"),
        (0, "A"),
        (0, ""),
        (1, "b"),
        (1, "B"),
    ]
    assert [chunk.finish_reason for chunk in found] == [None, None, "length", None, "stop"]


@pytest.mark.parametrize(
    ("reason", "ours"),
    [
        ("stop", "stop"),
        ("eos", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("abort", "abort"),
    ],
)
def test_reasons(host: Host, reason: str, ours: str) -> None:
    host.json(CHAT, {"choices": [choice("x", reason)]})
    assert opened(host).chat(HELLO)[0].outputs[0].finish_reason == ours


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ([], "no list of choices"),
        ({"choices": {}}, "no list of choices"),
        ({"choices": [1]}, "no list of choices"),
        ({"choices": []}, "answer 1 of 1 was cut off"),
        ({"choices": [{"index": 0, "finish_reason": None}]}, "holds no text"),
        ({"choices": [{"index": "0", "text": "x"}]}, "holds no text"),
        ({"choices": [choice("x", None)]}, "no finish_reason"),
        ({"choices": [choice("x", "because")]}, "ended with 'because'"),
        ({"choices": [choice("x", index=1)]}, "answer 1 came, and 1 were asked for"),
        ({"choices": [choice(None, "tool_calls", tool_calls=[{}])]}, "called a tool"),
        ({"choices": [choice(None, "stop", refusal="no")]}, "refuses to answer"),
    ],
)
def test_answers_that_are_none(host: Host, answer: object, says: str) -> None:
    host.json(CHAT, answer)
    with pytest.raises(HostedError, match=says):
        opened(host).chat(HELLO)


@pytest.mark.parametrize("body", [b"", b"<html>hi</html>", b"{", b'{"a": NaN}', b"[" * 100_000, b"\xff"])
def test_what_is_no_json(host: Host, body: bytes) -> None:
    host.answers(CHAT, Reply(body))
    with pytest.raises(HostedError, match="something else than JSON"):
        opened(host).chat(HELLO)
    host.answers(CHAT, Reply(kind="text/event-stream", packets=[b"data: " + body + b"x\n\n"]))
    with pytest.raises(HostedError, match="something else than JSON"):
        list(opened(host).stream(HELLO))


def test_an_error_within_a_stream(host: Host) -> None:
    for said in (
        b'event: error\ndata: {"message": "out of memory", "code": "oom"}\n\n',
        b'data: {"error": {"message": "out of memory", "type": "oom"}}\n\n',
    ):
        packets = [sse(delta("One")), said]
        host.answers(CHAT, Reply(kind="text/event-stream", packets=packets))
        found = opened(host).stream(HELLO)
        assert next(found).text == "One"
        with pytest.raises(HostedError, match=r"out of memory \(oom\)"):
            next(found)


def test_a_stream_that_is_none(host: Host) -> None:
    host.json(CHAT, {"choices": [choice("x")]})
    with pytest.raises(HostedError, match="answered application/json in place of a stream"):
        list(opened(host).stream(HELLO))


def test_an_interrupt_ends_a_stream() -> None:
    def pieces() -> Iterator[Piece]:
        yield Piece("One E")
        raise KeyboardInterrupt

    found = chunks(pieces(), Request("a", CHAT, {}, stops=("END",)), "m")
    assert next(found).text == "One "
    last = next(found)
    assert (last.text, last.finish_reason) == ("E", "abort")
    with pytest.raises(KeyboardInterrupt):
        next(found)


def _embedding(rows: list[list[float]]) -> dict[str, object]:
    data = [{"index": i, "embedding": row, "object": "embedding"} for i, row in enumerate(rows)]
    return {"data": data[::-1], "usage": {"prompt_tokens": 3}}


def test_vectors(host: Host) -> None:
    host.json(EMBEDDINGS, _embedding([[1, 0.5], [0, -2]]))
    told: list[tuple[int, int]] = []
    found = opened(host).embed(["a", "b"], prompt="query: ", dimensions=2, progress=lambda *n: told.append(n))
    assert torch.equal(found, torch.tensor([[1, 0.5], [0, -2]]))
    body = {"model": "org/m", "encoding_format": "float", "input": ["query: a", "query: b"], "dimensions": 2}
    assert host.asked[0].body == body
    assert told == [(2, 2)]


def test_many_texts_go_in_several_requests(host: Host) -> None:
    first, second = ([[float(i)] for i in range(count)] for count in (64, 6))
    replies = [Reply(json.dumps(_embedding(rows)).encode()) for rows in (first, second)]
    host.answers(EMBEDDINGS, *replies)
    found = opened(host).embed([f"text {i}" for i in range(70)])
    assert found[:, 0].tolist() == [*range(64), *range(6)]
    assert [len(asked.body["input"]) for asked in host.asked] == [64, 6]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (None, "no 2 vectors"),
        ([], "no 2 vectors"),
        ([{"index": 0, "embedding": [1]}], "no 2 vectors"),
        ([{"index": 0, "embedding": [1]}] * 2, "no 2 vectors"),
        ([{"index": i, "embedding": "AAAA"} for i in range(2)], "no 2 vectors"),
        ([{"index": i, "embedding": [1] * (i + 1)} for i in range(2)], "they are no matrix"),
        ([{"index": i, "embedding": []} for i in range(2)], "they are no matrix"),
        ([{"index": i, "embedding": ["1"]} for i in range(2)], "something else than numbers"),
        ([{"index": i, "embedding": [True]} for i in range(2)], "something else than numbers"),
    ],
)
def test_vectors_that_are_none(host: Host, data: object, says: str) -> None:
    host.json(EMBEDDINGS, {"data": data})
    with pytest.raises(HostedError, match=says):
        opened(host).embed(["a", "b"])
