"""Many at once, gone away, in a hurry, too many: what OpenAI's client does when a server is in use."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx2
import openai
import pytest

from tests.conformance.target import SECONDS, Target

pytestmark = pytest.mark.needs("chat")


def _text(found: Any) -> str:
    return str(found.choices[0].message.content)


def test_answers_are_given_asynchronously(target: Target) -> None:
    async def both() -> tuple[str, str]:
        async with target.aclient() as client:
            whole = await client.chat.completions.create(**target.chat())
            stream = await client.chat.completions.create(**target.chat(), stream=True)
            parts = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
            return _text(whole), "".join(parts)

    whole, streamed = asyncio.run(both())
    assert whole == streamed


def test_answers_at_once_are_answers_alone(target: Target) -> None:
    questions = [f"Say the number {i} and count on." for i in range(8)]

    async def together() -> list[str]:
        async with target.aclient() as client:
            asked = (client.chat.completions.create(**target.chat(question)) for question in questions)
            return [_text(found) for found in await asyncio.gather(*asked)]

    with target.client() as client:
        alone = [_text(client.chat.completions.create(**target.chat(question))) for question in questions]
    assert asyncio.run(together()) == alone


@pytest.mark.needs("completions", "responses")
def test_all_endpoints_are_asked_asynchronously(target: Target) -> None:
    async def ask() -> tuple[str, str, str]:
        async with target.aclient() as client:
            completion = await client.completions.create(**target.complete())
            parts = await client.completions.create(**target.complete(), stream=True)
            text = "".join([chunk.choices[0].text async for chunk in parts if chunk.choices])
            response = await client.responses.create(
                model=target.model, input="Hello.", max_output_tokens=16, store=False
            )
            return completion.choices[0].text, text, response.output_text

    whole, streamed, said = asyncio.run(ask())
    assert whole == streamed
    assert said


def test_a_stream_that_is_closed_disturbs_nobody(client: openai.OpenAI, target: Target) -> None:
    """Sixteen long answers are asked for and left; the next question is answered as ever."""
    want = _text(client.chat.completions.create(**target.chat()))
    for _ in range(16):
        stream = client.chat.completions.create(**target.chat(max_tokens=200), stream=True)
        next(iter(stream))
        stream.close()
    assert _text(client.chat.completions.create(**target.chat())) == want


def test_a_client_that_waits_no_longer_disturbs_nobody(client: openai.OpenAI, target: Target) -> None:
    want = _text(client.chat.completions.create(**target.chat()))
    hurried = client.with_options(timeout=httpx2.Timeout(SECONDS, read=0.001))
    with pytest.raises(openai.APITimeoutError):
        hurried.chat.completions.create(**target.chat(max_tokens=200))
    assert _text(client.chat.completions.create(**target.chat())) == want


def test_a_refusal_is_not_asked_again(target: Target) -> None:
    """The client repeats 408, 409, 429 and 5xx; a bad request must be none of them."""
    sent: list[httpx2.Request] = []
    hooks: dict[str, Any] = {"request": [sent.append]}
    with (
        openai.DefaultHttpxClient(event_hooks=hooks) as http,
        openai.OpenAI(
            base_url=target.url, api_key=target.key or "none", http_client=http, max_retries=3
        ) as client,
        pytest.raises(openai.BadRequestError),
    ):
        client.chat.completions.create(**target.chat(temperature=9))
    assert len(sent) == 1


def _burst(target: Target, *, count: int, retries: int) -> list[Any]:
    async def ask() -> list[Any]:
        async with target.aclient().with_options(max_retries=retries) as client:
            asked = (
                client.chat.completions.create(**target.chat(f"Number {i}.", max_tokens=64))
                for i in range(count)
            )
            return await asyncio.gather(*asked, return_exceptions=True)

    return asyncio.run(ask())


def test_a_burst_is_answered_or_told_to_wait(target: Target) -> None:
    for found in _burst(target, count=64, retries=0):
        if isinstance(found, BaseException):
            assert isinstance(found, openai.RateLimitError), repr(found)
            assert float(found.response.headers["retry-after"]) >= 0
        else:
            assert found.choices[0].finish_reason


@pytest.mark.needs("overload")
def test_too_many_are_told_to_wait_and_are_answered_then(crowded: Target) -> None:
    failures = [found for found in _burst(crowded, count=24, retries=0) if isinstance(found, BaseException)]
    refused = [found for found in failures if isinstance(found, openai.RateLimitError)]
    assert refused == failures != []
    for found in refused:
        assert 0 < float(found.response.headers["retry-after"]) <= 60, "the client waits no longer than that"
        assert found.response.headers.get("x-should-retry", "true") == "true"
        assert found.code
    began = time.monotonic()
    answered = _burst(crowded, count=12, retries=12)
    assert not [found for found in answered if isinstance(found, BaseException)], answered
    assert time.monotonic() - began < SECONDS
