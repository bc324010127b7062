"""Commands with a hosted model's name, against a host on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bestiary import LLM, RequestError, SamplingParams
from bestiary.cli.talk import Talk
from tests import hosts
from tests.hosts import Host, Reply, frame, sse

from .conftest import Bestiary

ANSWER = sse(
    {"choices": [{"index": 0, "delta": {"content": "Hi "}}]},
    {"choices": [{"index": 0, "delta": {"content": "你好"}, "finish_reason": "stop"}]},
    "[DONE]",
)
TEXT = sse({"choices": [{"index": 0, "text": " a time", "finish_reason": "length"}]}, "[DONE]")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host that is both operators, and an environment without anybody's keys."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "OPENAI_")) or name in ("BESTIARY_OPENAI_API_KEY", "BESTIARY_DEVICE"):
            monkeypatch.delenv(name)
    with hosts.host() as found:
        for name, value in {
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": found.url,
            "AWS_ACCESS_KEY_ID": "-",
            "AWS_SECRET_ACCESS_KEY": "-",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_MAX_ATTEMPTS": "1",
        }.items():
            monkeypatch.setenv(name, value)
        found.answers("/chat/completions", Reply(kind="text/event-stream", packets=[ANSWER]))
        found.answers("/v1/completions", Reply(kind="text/event-stream", packets=[TEXT]))
        yield found


@pytest.fixture
def model(host: Host) -> str:
    return f"openai:m@{host.url}/v1"


def test_chat(bestiary: Bestiary, host: Host, model: str) -> None:
    ran = bestiary(
        "chat", model, "-p", "hi", "--system", "Be brief.", "--temp", "0.5", "-n", "9", "--stop", "X"
    )
    assert (ran.code, ran.out) == (0, "Hi 你好\n")
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    assert host.asked[0].body == {
        "model": "m",
        "messages": talk,
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 1,
        "stop": ["X"],
        "stream": True,
    }


def test_chat_with_titan(bestiary: Bestiary, host: Host) -> None:
    event = {"outputText": " Hello.", "index": 0, "completionReason": "FINISHED"}
    host.answers("-stream", Reply(kind="application/vnd.amazon.eventstream", packets=[frame(event)]))
    for name in ("bedrock:amazon.titan-text-express-v1", "titan"):
        ran = bestiary("chat", name, "-p", "hi")
        assert (ran.code, ran.out) == (0, " Hello.\n")
    assert {asked.body["inputText"] for asked in host.asked} == {"User: hi\nBot:"}
    ran = bestiary("chat", "titan", "-p", "hi", "--system", "Be brief.")
    assert (ran.code, "no place for the role 'system'" in ran.err) == (2, True)
    ran = bestiary("chat", "titan", "-p", "hi", "--system", "Be brief.", "--chat-template", "titan-langchain")
    assert (ran.code, ran.out) == (0, " Hello.\n")


def test_what_amazon_retired(bestiary: Bestiary, host: Host) -> None:
    said = {"message": "This model version has reached the end of its life."}
    host.json("-stream", said, 404, x_amzn_ErrorType="ResourceNotFoundException")
    ran = bestiary("chat", "titan", "-p", "hi")
    assert (ran.code, ran.out) == (3, "")
    assert "end of its life" in ran.err
    assert "try: Amazon retired Titan Text" in ran.err


def test_generate(bestiary: Bestiary, host: Host, model: str) -> None:
    assert bestiary("generate", model, "Once upon").out == " a time\n"
    assert host.asked[0].body["temperature"] == 0
    usage = {"prompt_tokens": 2, "completion_tokens": 3}
    whole = {"choices": [{"index": 0, "text": " a time", "finish_reason": "length"}], "usage": usage}
    host.json("/v1/completions", whole)
    said = json.loads(bestiary("generate", model, "Once upon", "--json").out)
    assert said["outputs"][0]["text"] == " a time"
    assert said["usage"] == {"prompt_tokens": 2, "tokens": 3}


def test_generate_many(bestiary: Bestiary, host: Host, model: str, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n{"messages": [{"role": "user", "content": "b"}]}\n')
    whole = {"choices": [{"index": 0, "text": "A", "finish_reason": "stop"}], "usage": {"prompt_tokens": 2}}
    host.json("/v1/completions", whole)
    host.json("/chat/completions", {"error": {"message": "slowly"}}, 429)
    ran = bestiary("generate", model, "--jsonl", tmp_path / "in.jsonl", "--out", tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert ran.code == 1
    assert rows[0] == {
        "prompt": "a",
        "text": "A",
        "finish_reason": "stop",
        "prompt_tokens": 2,
        "tokens": None,
    }
    assert "slowly (HTTP 429)" in rows[1]["error"]


def test_embed(bestiary: Bestiary, host: Host, model: str) -> None:
    host.json("/embeddings", {"data": [{"index": i, "embedding": [i, 1.0]} for i in range(2)]})
    said = json.loads(bestiary("embed", model, "a", "b", "--json").out)
    assert [row["vector"] for row in said] == [[0, 1], [1, 1]]
    host.json("/invoke", {"embedding": [0.5, 0.5]})
    said = json.loads(bestiary("embed", "bedrock:amazon.titan-embed-text-v2:0", "a", "--json").out)
    assert said == [{"text": "a", "vector": [0.5, 0.5]}]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("chat", "--device", "cpu", "-p", "hi"), "--device has no effect"),
        (("chat", "--ctx-size", "4K", "-p", "hi"), "--ctx-size has no effect"),
        (("chat", "--top-k", "5", "-p", "hi"), "top_k=5"),
        (("generate", "--beams", "2", "-p", "hi"), "beams"),
        (("score", "a text"), "scores"),
        (("classify", "a text"), "classes"),
    ],
)
def test_what_has_no_place_is_refused(
    bestiary: Bestiary, host: Host, model: str, arguments: tuple[str, ...], says: str
) -> None:
    command, *rest = arguments
    ran = bestiary(command, model, *rest)
    assert (ran.code, says in ran.err) == (2, True), ran.err
    assert host.asked == []


def test_variables_for_models_that_are_here_do_not_matter(
    bestiary: Bestiary, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BESTIARY_DEVICE", "cuda")
    assert bestiary("chat", model, "-p", "hi").code == 0


def test_other_commands_need_a_model_that_is_here(bestiary: Bestiary, host: Host, model: str) -> None:
    for command in (("tokenize", model, "x"), ("show", model), ("show", "bedrock:amazon.titan-text-lite-v1")):
        ran = bestiary(*command)
        assert (ran.code, "is a hosted model" in ran.err) == (3, True)
    assert bestiary("bench", model).code == 2
    assert host.asked == []


def test_a_conversation_goes_on(host: Host, model: str, tmp_path: Path) -> None:
    talk, shown = Talk(LLM(model), SamplingParams()), list[str]()
    talk.instruct("Be brief.")
    talk.ask("one", shown.append)
    talk.save(tmp_path / "talk.json")
    again = Talk(LLM(model), SamplingParams())
    again.load(tmp_path / "talk.json")
    again.ask("two", shown.append)
    assert [message["content"] for message in host.asked[1].body["messages"]] == [
        "Be brief.",
        "one",
        "Hi 你好",
        "two",
    ]
    assert json.loads((tmp_path / "talk.json").read_text())["model"] == model
    (tmp_path / "talk.json").write_text('{"messages": [{"role": "tool", "content": "x"}]}')
    with pytest.raises(RequestError, match="no saved conversation"):
        again.load(tmp_path / "talk.json")
