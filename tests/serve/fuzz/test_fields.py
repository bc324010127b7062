"""One field at a time: every one of them, with every value that has broken a server (or a neighbour)."""

from __future__ import annotations

import httpx2
import pytest

from tests.serve.errors import problem
from tests.serve.fuzz.fields import REQUESTS, cases
from tests.serve.serving import Running

_JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("path", REQUESTS)
def test_no_value_of_a_field_is_more_than_refused(fuzzed: Running, path: str) -> None:
    with fuzzed.client() as client:
        document = client.get("/openapi.json").json()
        count, wrong = 0, []
        for case in cases(document, path):
            answer = client.post(path, content=case.body.encode(), headers=_JSON)
            count += 1
            found = problem(
                answer.status_code, answer.headers.get("content-type", ""), answer.content, case.body
            )
            if found is not None:
                wrong.append(f"{case.field} = {case.value[:80]}: {found}")
    assert wrong == [], "\n".join(wrong[:20])
    assert count > 50


def test_every_request_of_the_file_is_fuzzed(fuzzed: Running) -> None:
    with fuzzed.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    assert {path for path, operations in paths.items() if "post" in operations} == set(REQUESTS)


def test_a_surrogate_is_refused_everywhere(fuzzed: Running) -> None:
    """A sample in every run; all 2,048 at night."""
    with fuzzed.client() as client:
        for code in range(0xD800, 0xE000, 61):
            _refuse_surrogate(client, code)


@pytest.mark.nightly
def test_every_surrogate_is_refused_everywhere(fuzzed: Running) -> None:
    with fuzzed.client() as client:
        for code in range(0xD800, 0xE000):
            _refuse_surrogate(client, code)


def _refuse_surrogate(client: httpx2.Client, code: int) -> None:
    spelt = f'"a\\u{code:04x}b"'
    for path, body in {
        "/v1/chat/completions": f'{{"messages":[{{"role":"user","content":{spelt}}}]}}',
        "/v1/completions": f'{{"prompt":{spelt}}}',
        "/v1/embeddings": f'{{"input":{spelt}}}',
        "/tokenize": f'{{"prompt":{spelt}}}',
    }.items():
        answer = client.post(path, content=body.encode(), headers=_JSON)
        assert answer.status_code == 400, (path, spelt, answer.text)
        assert problem(400, answer.headers["content-type"], answer.content) is None


def _read_and_write(client: httpx2.Client, codes: list[int]) -> None:
    text = "".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000)
    answer = client.post("/tokenize", json={"prompt": text})
    assert answer.status_code == 200, (hex(codes[0]), answer.text[:300])
    back = client.post("/detokenize", json={"tokens": answer.json()["tokens"]})
    assert back.json()["prompt"] == text


def test_characters_are_read_and_written(fuzzed: Running) -> None:
    """A sample of every plane, through tokens and back."""
    with fuzzed.client() as client:
        _read_and_write(client, list(range(0x800)))
        _read_and_write(client, list(range(0, 0x110000, 257)))


@pytest.mark.nightly
def test_every_character_is_read_and_written(fuzzed: Running) -> None:
    """All of Unicode but the surrogates."""
    with fuzzed.client() as client:
        for start in range(0, 0x110000, 0x1000):
            _read_and_write(client, list(range(start, start + 0x1000)))
