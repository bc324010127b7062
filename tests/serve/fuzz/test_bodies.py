"""Bodies that are no requests: what no JSON library writes, what HTTP forbids, and random damage."""

from __future__ import annotations

import gzip
import json
import random
import socket
import zlib

import httpx2
import pytest

from tests.serve.errors import problem
from tests.serve.fuzz.conftest import KEY
from tests.serve.fuzz.fields import REQUESTS
from tests.serve.serving import Running

_CHAT = b'{"messages":[{"role":"user","content":"a"}],"max_tokens":2}'
_JSON = "application/json"

# body, content-type, other headers: all of them are refused.
BAD: dict[str, tuple[bytes, str | None, dict[str, str]]] = {
    "nothing": (b"", _JSON, {}),
    "white space": (b" \n\t ", _JSON, {}),
    "duplicate keys": (_CHAT[:-1] + b',"max_tokens":3}', _JSON, {}),
    "duplicate keys spelt differently": (_CHAT[:-1] + b',"max\\u005ftokens":3}', _JSON, {}),
    "duplicate keys within": (b'{"messages":[{"role":"user","role":"system","content":"a"}]}', _JSON, {}),
    "NaN": (_CHAT[:-1] + b',"temperature":NaN}', _JSON, {}),
    "Infinity": (_CHAT[:-1] + b',"temperature":Infinity}', _JSON, {}),
    "a number past float64": (_CHAT[:-1] + b',"temperature":1e400}', _JSON, {}),
    "an integer of 5,000 digits": (_CHAT[:-1] + b',"seed":' + b"1" * 5000 + b"}", _JSON, {}),
    "an integer of a million digits": (_CHAT[:-1] + b',"seed":' + b"1" * 10**6 + b"}", _JSON, {}),
    "an exponent of a million": (_CHAT[:-1] + b',"temperature":1e1000000}', _JSON, {}),
    "leading zeros": (_CHAT[:-1] + b',"seed":007}', _JSON, {}),
    "hexadecimal": (_CHAT[:-1] + b',"seed":0x7}', _JSON, {}),
    "deep lists": (b"[" * 100_000, _JSON, {}),
    "deep lists, closed": (b"[" * 100_000 + b"]" * 100_000, _JSON, {}),
    "deep objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, _JSON, {}),
    "deep within": (b'{"messages":' + b"[" * 500 + b"]" * 500 + b"}", _JSON, {}),
    "deep schema": (
        b'{"messages":[{"role":"user","content":"a"}],"structured_outputs":{"json":'
        + b'{"items":' * 60 + b"{}" + b"}" * 60 + b"}}",
        _JSON, {},
    ),
    "a million commas": (b'{"messages":[' + b"," * 10**6 + b"]}", _JSON, {}),
    "a million members": (b'{"messages":[' + b"1," * 10**6 + b"1]}", _JSON, {}),
    "a million keys": (b"{" + b",".join(b'"%d":1' % i for i in range(200_000)) + b"}", _JSON, {}),
    "not UTF-8": (_CHAT.replace(b'"a"', b'"\xff\xfe"'), _JSON, {}),
    "overlong UTF-8": (_CHAT.replace(b'"a"', b'"\xc0\xaf"'), _JSON, {}),
    "surrogates as UTF-8": (_CHAT.replace(b'"a"', b'"\xed\xa0\x80"'), _JSON, {}),
    "half a character": (_CHAT.replace(b'"a"', b'"\xf0\x9f"'), _JSON, {}),
    "UTF-16": (_CHAT.decode().encode("utf-16"), _JSON, {}),
    "UTF-32": (_CHAT.decode().encode("utf-32"), _JSON, {}),
    "half a surrogate pair": (_CHAT.replace(b'"a"', b'"\\ud83d"'), _JSON, {}),
    "a control character": (_CHAT.replace(b'"a"', b'"\x01"'), _JSON, {}),
    "a line break in a string": (_CHAT.replace(b'"a"', b'"\n"'), _JSON, {}),
    "a bad escape": (_CHAT.replace(b'"a"', b'"\\x41"'), _JSON, {}),
    "single quotes": (_CHAT.replace(b'"', b"'"), _JSON, {}),
    "a comment": (b"/* a */" + _CHAT, _JSON, {}),
    "a comma too many": (_CHAT[:-1] + b",}", _JSON, {}),
    "two values": (_CHAT + _CHAT, _JSON, {}),
    "something behind": (_CHAT + b"\0", _JSON, {}),
    "cut short": (_CHAT[:-5], _JSON, {}),
    "a list": (b"[" + _CHAT + b"]", _JSON, {}),
    "a text": (json.dumps(_CHAT.decode()).encode(), _JSON, {}),
    "YAML": (b"messages: []", _JSON, {}),
    "a pickle": (b"\x80\x04\x95\x1d\x00\x00\x00\x8c\x05posix\x8c\x06system\x93.", _JSON, {}),
    "another type": (_CHAT, "text/plain", {}),
    "no type": (_CHAT, None, {}),
    "a form": (b"messages=a", "application/x-www-form-urlencoded", {}),
    "a form of parts": (b"--a\r\n\r\n--a--", "multipart/form-data; boundary=a", {}),
    "a form of parts without a boundary": (b"a", "multipart/form-data", {}),
    "a type that begins alike": (_CHAT, "application/jsonp", {}),
    "a pickle's type": (_CHAT, "application/python-pickle", {}),
    "gzip": (gzip.compress(_CHAT), _JSON, {"Content-Encoding": "gzip"}),
    "gzip unsaid": (gzip.compress(_CHAT), _JSON, {}),
    "a gzip bomb": (gzip.compress(b" " * 50_000_000), _JSON, {"Content-Encoding": "gzip"}),
    "deflate": (zlib.compress(_CHAT), _JSON, {"Content-Encoding": "deflate"}),
    "an unknown coding": (_CHAT, _JSON, {"Content-Encoding": "br, gzip"}),
    "too much": (b" " * ((4 << 20) + 1) + _CHAT, _JSON, {}),
}  # fmt: skip


def _check(answer: httpx2.Response, sent: bytes) -> None:
    found = problem(
        answer.status_code,
        answer.headers.get("content-type", ""),
        answer.content,
        sent[:10_000].decode(errors="replace"),
    )
    assert found is None, found


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
def test_a_bad_body_is_refused(fuzzed: Running, path: str, name: str) -> None:
    body, kind, headers = BAD[name]
    typed = headers if kind is None else headers | {"Content-Type": kind}
    with fuzzed.client() as client:
        answer = client.post(path, content=body, headers=typed)
    assert 400 <= answer.status_code < 500, answer.text
    _check(answer, body)


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
def test_a_good_body_is_read(fuzzed: Running, kind: str) -> None:
    with fuzzed.client() as client:
        for body in (_CHAT, b"  " + _CHAT + b"\r\n"):
            answer = client.post("/v1/chat/completions", content=body, headers={"Content-Type": kind})
            assert answer.status_code == 200, answer.text


_HEAD = (
    f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
    f"Content-Type: application/json\r\nConnection: close\r\n"
).encode()
_CHUNK = b"%x\r\n%s\r\n" % (len(_CHAT), _CHAT)
# What follows the head; whether it is a lie about lengths, or a whole request.
FRAMES: dict[str, tuple[bytes, bool]] = {
    "chunks": (b"Transfer-Encoding: chunked\r\n\r\n" + _CHUNK + b"0\r\n\r\n", True),
    "chunks with an extension": (
        b"Transfer-Encoding: chunked\r\n\r\n" + _CHUNK.replace(b"\r\n", b";a=b\r\n", 1) + b"0\r\n\r\n",
        True,
    ),
    "chunks with a trailer": (b"Transfer-Encoding: chunked\r\n\r\n" + _CHUNK + b"0\r\nX-A: b\r\n\r\n", True),
    "a byte a chunk": (
        b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(b"1\r\n%c\r\n" % c for c in _CHAT) + b"0\r\n\r\n",
        True,
    ),
    "a chunk that is longer": (b"Transfer-Encoding: chunked\r\n\r\nfff\r\n" + _CHAT, False),
    "a chunk that is shorter": (b"Transfer-Encoding: chunked\r\n\r\n1\r\n" + _CHAT + b"\r\n0\r\n\r\n", False),
    "a chunk of 2^64": (b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n" + _CHAT, False),
    "a chunk of 2^4000": (b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 1000 + b"\r\n" + _CHAT, False),
    "a negative chunk": (b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + _CHAT, False),
    "a chunk of no number": (b"Transfer-Encoding: chunked\r\n\r\nparrot\r\n" + _CHAT, False),
    "chunks that do not end": (b"Transfer-Encoding: chunked\r\n\r\n" + _CHUNK, False),
    "an endless extension": (b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * (1 << 20), False),
    "an endless trailer": (
        b"Transfer-Encoding: chunked\r\n\r\n" + _CHUNK + b"0\r\n" + b"X: a\r\n" * 99999,
        False,
    ),
    "chunked twice": (b"Transfer-Encoding: chunked, chunked\r\n\r\n" + _CHUNK + b"0\r\n\r\n", False),
    "an unknown coding": (b"Transfer-Encoding: gzip\r\n\r\n" + gzip.compress(_CHAT), False),
    "both lengths": (
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + _CHUNK + b"0\r\n\r\n",
        False,
    ),
    "a length": (b"Content-Length: %d\r\n\r\n" % len(_CHAT) + _CHAT, True),
    "a length that is longer": (b"Content-Length: 4000\r\n\r\n" + _CHAT, False),
    "a length that is shorter": (b"Content-Length: 5\r\n\r\n" + _CHAT, False),
    "a length of 2^64": (b"Content-Length: 18446744073709551616\r\n\r\n" + _CHAT, False),
    "a length of 5,000 digits": (b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n" + _CHAT, False),
    "a negative length": (b"Content-Length: -5\r\n\r\n" + _CHAT, False),
    "a length with a sign": (b"Content-Length: +%d\r\n\r\n" % len(_CHAT) + _CHAT, False),
    "a length of no number": (b"Content-Length: parrot\r\n\r\n" + _CHAT, False),
    "two lengths": (b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + _CHAT, False),
    "no length": (b"\r\n" + _CHAT, False),
}  # fmt: skip


@pytest.mark.parametrize("name", FRAMES)
def test_a_lie_about_lengths_is_refused(fuzzed: Running, name: str) -> None:
    """Its sender leaves then: a server may wait for what was promised, but not for ever, and not others."""
    rest, whole = FRAMES[name]
    answer = _framed(fuzzed, _HEAD + rest, leaves=not whole)
    first = int(answer.split(b" ", 2)[1]) if answer else 0
    assert first == 200 if whole else first in (0, 400, 413, 415, 501), answer[:300]


def _framed(fuzzed: Running, data: bytes, *, leaves: bool) -> bytes:
    """Return all that is answered to bytes; nothing where the connection is reset."""
    answer = b""
    with socket.create_connection(("127.0.0.1", fuzzed.port), timeout=40) as connection:
        try:
            connection.sendall(data)
            if leaves:
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                answer += part
        except TimeoutError:
            raise  # it waits for ever
        except OSError:
            pass
    return answer


def _damaged(rng: random.Random, body: bytes) -> bytes:
    """A body with a few bytes changed, left out, doubled, or exchanged for others that mean something."""
    data = bytearray(body)
    for _ in range(rng.randint(1, 4)):
        at, end = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
        match rng.randrange(5):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del data[at : min(end, at + 9)]
            case 2:
                data[at:at] = data[at : min(end, at + 40)] * rng.randint(1, 3)
            case 3:
                data[at:at] = rng.choice(_PIECES)
            case 4:
                data[at : at + 4] = rng.choice(_PIECES)
        data = data or bytearray(b"{")
    return bytes(data)


_PIECES = [
    b"null",
    b"-1",
    b"1e999",
    b'"',
    b"{",
    b"[",
    b"]",
    b"}",
    b",",
    b":",
    b"\\u0000",
    b"\\ud800",
    b"\xff",
    b"\0",
]
_PIECES += [
    b"true",
    b"NaN",
    b'"n":16',
    b'"stream":true,',
    b'"logprobs":true,',
    b'"stop":["a"],',
    b'"echo":true,',
]
_PIECES += [b"99999999999999999999", b"0.1e-400", b'"temperature":2,', b'"ignore_eos":true,', b"<|im_end|>"]


def _damage(fuzzed: Running, count: int, seed: int) -> None:
    rng = random.Random(seed)
    bodies = [(path, json.dumps(base).encode()) for path, (_, base) in REQUESTS.items()]
    with fuzzed.client() as client:
        for _ in range(count):
            path, body = rng.choice(bodies)
            sent = _damaged(rng, body)
            _check(client.post(path, content=sent, headers={"Content-Type": _JSON}), sent)


def test_damaged_bodies_are_read_or_refused(fuzzed: Running) -> None:
    _damage(fuzzed, 1500, seed=0)


@pytest.mark.nightly
def test_a_hundred_thousand_damaged_bodies_are_read_or_refused(fuzzed: Running) -> None:
    _damage(fuzzed, 100_000, seed=random.randrange(2**32))
