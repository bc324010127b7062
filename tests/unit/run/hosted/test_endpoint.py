"""An address that refuses, sends on, is silent, drips, breaks off, or would like to know a key."""

from __future__ import annotations

import json

import pytest

from bestiary import LLM, Hosted, HostedError, RequestError
from bestiary.run.hosted import endpoint
from bestiary.run.hosted.endpoint import wait_of
from bestiary.run.hosted.openai import KEY, OPENAI_KEY, OpenAI
from tests.hosts import Host, Reply, sse

from .conftest import SECRET
from .openai_host import CHAT, HELLO, choice, delta, opened


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (400, {"error": {"message": "bad", "code": "c"}}, r"bad \(HTTP 400, c\)"),
        (401, {"error": {"message": "who?"}}, "No key was sent: set BESTIARY_OPENAI_API_KEY"),
        (403, {"detail": "not yours"}, "not yours .*may not use this model"),
        (404, {"error": "no model"}, r"no model \(HTTP 404\).*ends before /chat/completions"),
        (413, {}, "Ask for less"),
        (422, {"detail": [{"loc": ["body"]}]}, "loc.*operator's documentation"),
        (429, {"message": "slowly"}, r"slowly \(HTTP 429\). Ask again later"),
        (500, [], r"Internal Server Error \(HTTP 500\). Ask again later"),
        (503, None, r"Service Unavailable \(HTTP 503\)"),
    ],
)
def test_refusals(host: Host, status: int, body: object, says: str) -> None:
    host.json(CHAT, body, status)
    with pytest.raises(HostedError, match=says) as error:
        opened(host).chat(HELLO)
    assert error.value.code is not None
    assert error.value.code.startswith(f"HTTP {status}")
    with pytest.raises(HostedError, match=says):
        list(opened(host).stream(HELLO))


def test_what_is_refused_in_no_json_at_all(host: Host) -> None:
    host.answers(CHAT, Reply(b"<h1>\x1b[31mBad Gateway", 502, "text/html"))
    with pytest.raises(HostedError, match=r"Bad Gateway \(HTTP 502\)") as error:
        opened(host).chat(HELLO)
    assert str(error.value).isprintable()


def test_the_wait_is_told(host: Host) -> None:
    host.json(CHAT, {"error": {"message": "slowly"}}, 429, Retry_After="7")
    with pytest.raises(HostedError, match="Ask again in 7 seconds") as error:
        opened(host).chat(HELLO)
    assert error.value.wait == 7
    assert wait_of("Fri, 31 Dec 1999 23:59:59 GMT") == 0
    assert (wait_of(None), wait_of("soon"), wait_of("-1")) == (None, None, None)
    assert (wait_of("Wed, 31 Dec 2098 23:59:59 GMT") or 0) > 0


def test_a_redirect_is_not_followed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, SECRET)
    for status in (301, 302, 307, 308):
        host.json(CHAT, {}, status, Location=f"{host.url}/elsewhere")
        with pytest.raises(HostedError, match=r"sends requests on to '127.0.0.1', and none is sent on"):
            opened(host).chat(HELLO)
    assert {asked.path for asked in host.asked} == {"/v1/chat/completions"}


def test_a_key_goes_into_one_header_and_nowhere_else(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, SECRET)
    host.json(CHAT, {"error": {"message": f"{SECRET} is no key", "code": SECRET}}, 401)
    with pytest.raises(HostedError, match="The key was refused") as error:
        opened(host).chat(HELLO)
    assert host.asked[0].headers["Authorization"] == f"Bearer {SECRET}"
    assert SECRET not in str(error.value) + repr(error.value) + repr(vars(error.value))
    assert SECRET not in json.dumps(host.asked[0].body)


def test_openais_key_is_openais_alone(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OPENAI_KEY, SECRET)
    host.json(CHAT, {"choices": [choice("x")]})
    opened(host).chat(HELLO)
    assert "Authorization" not in host.asked[0].headers
    for name in ("openai:m@https://api.openai.com/v1", "openai:m@https://eu.api.openai.com/v1"):
        assert _key_of(name) == SECRET
    assert _key_of("openai:m@https://api.openai.com.example/v1") is None
    assert _key_of("openai:m@https://notopenai.com/v1") is None


def _key_of(name: str) -> str | None:
    llm = LLM(name)
    assert isinstance(llm, Hosted)
    assert isinstance(llm.operator, OpenAI)
    return llm.operator._endpoint._key


def test_a_key_that_no_header_may_hold(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, f"{SECRET}\r\nHost: elsewhere")
    with pytest.raises(RequestError, match="no header may hold") as error:
        opened(host)
    assert SECRET not in str(error.value)


def test_silence_ends(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BESTIARY_HOSTED_TIMEOUT", "0.2")
    host.answers(CHAT, Reply(b"{}", silence=30))
    with pytest.raises(HostedError, match=r"nothing came for 0.2 seconds.*BESTIARY_HOSTED_TIMEOUT=0.4"):
        opened(host).chat(HELLO)
    packets = [sse(delta("One")), sse(delta("two", "stop"))]
    host.answers(CHAT, Reply(kind="text/event-stream", packets=packets, rest=30))
    found = opened(host).stream(HELLO)
    assert next(found).text == "One"
    with pytest.raises(HostedError, match="nothing came"):
        next(found)


def test_an_answer_that_drips_ends_too(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BESTIARY_HOSTED_TIMEOUT", "0.2")
    host.answers(CHAT, Reply(packets=[b" "] * 10_000, rest=0.05))
    with pytest.raises(HostedError, match="nothing came"):
        opened(host).chat(HELLO)


@pytest.mark.parametrize("said", ["0", "-1", "soon", "1e9", "inf"])
def test_a_time_that_is_none(host: Host, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("BESTIARY_HOSTED_TIMEOUT", said)
    with pytest.raises(RequestError, match="should be a number of seconds"):
        opened(host)


def test_size_is_bounded(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "MOST_BYTES", 1000)
    host.answers(CHAT, Reply(b" " * 2000))
    with pytest.raises(HostedError, match="more than 1,000 bytes"):
        opened(host).chat(HELLO)
    host.answers(CHAT, Reply(kind="text/event-stream", packets=[b": x\n"] * 400))
    with pytest.raises(HostedError, match="more than 1,000 bytes"):
        list(opened(host).stream(HELLO))


def test_an_answer_that_is_cut_off(host: Host) -> None:
    host.answers(CHAT, Reply(b'{"choices": []}', broken=True))
    with pytest.raises(HostedError, match="10 bytes are missing"):
        opened(host).chat(HELLO)


def test_nobody_is_there() -> None:
    with pytest.raises(HostedError, match=r"connection failed.*refused"):
        LLM("openai:m@http://127.0.0.1:9/v1").chat(HELLO)
