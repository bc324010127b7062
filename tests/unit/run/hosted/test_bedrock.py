"""Amazon Titan: botocore's stub for answers, and its own reader of event streams over frames from a host."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from botocore.response import StreamingBody
from botocore.stub import Stubber

from bestiary import LLM, Hosted, HostedError, RequestError, SamplingParams
from bestiary.prove import prompts, wire
from bestiary.run.hosted import bedrock as bedrock_module
from bestiary.run.hosted.aws import REMEDIES
from bestiary.run.hosted.bedrock import Titan
from bestiary.run.hosted.operator import HostedOutput
from tests.hosts import Host, Reply, frame

from .conftest import SECRET

EXPRESS, V1, V2 = "amazon.titan-text-express-v1", "amazon.titan-embed-text-v1", "amazon.titan-embed-text-v2:0"
PARAMS = SamplingParams(temperature=0.5, top_p=0.9, max_tokens=64)
HELLO = [{"role": "user", "content": "Hi"}]
FORM = "application/json"


def _open(model: str = EXPRESS, **more: Any) -> tuple[Hosted, Titan]:
    llm = LLM(f"bedrock:{model}", **more)
    assert isinstance(llm, Hosted)
    assert isinstance(llm.operator, Titan)
    return llm, llm.operator


class _Sent:
    """Equals, and keeps, the body that was sent."""

    body: Any = None

    def __eq__(self, data: object) -> bool:
        assert isinstance(data, bytes)
        self.body = json.loads(data)
        return True

    __hash__ = None  # type: ignore[assignment]


def _answer(stub: Stubber, answer: object, model: str = EXPRESS) -> _Sent:
    data, sent = answer if isinstance(answer, bytes) else json.dumps(answer).encode(), _Sent()
    stub.add_response(
        "invoke_model",
        {"body": StreamingBody(io.BytesIO(data), len(data)), "contentType": FORM},
        {"modelId": model, "contentType": FORM, "accept": FORM, "body": sent},
    )
    return sent


def _result(text: str, reason: object = "FINISHED") -> dict[str, Any]:
    result = {"tokenCount": 3, "outputText": text, "completionReason": reason}
    return {"inputTextTokenCount": 5, "results": [result]}


def test_a_continuation() -> None:
    llm, titan = _open()
    with Stubber(titan.client) as stub:
        sent = _answer(stub, _result("\nBlue."))
        (found,) = llm.generate("A colour:", PARAMS)
    assert isinstance(found, HostedOutput)
    assert (found.text, found.prompt, found.prompt_tokens, found.tokens) == ("\nBlue.", "A colour:", 5, 3)
    config = {"temperature": 0.5, "topP": 0.9, "maxTokenCount": 64, "stopSequences": []}
    assert sent.body == {"inputText": "A colour:", "textGenerationConfig": config}


@pytest.mark.parametrize(
    ("model", "longest"),
    [("amazon.titan-text-lite-v1", 4096), (EXPRESS, 8192), ("amazon.titan-text-premier-v1:0", 3072)],
)
def test_as_much_as_the_model_answers(model: str, longest: int) -> None:
    llm, titan = _open(model)
    with Stubber(titan.client) as stub:
        sent = _answer(stub, _result("x"), model)
        llm.generate("a", SamplingParams(max_tokens=None))
    assert sent.body["textGenerationConfig"]["maxTokenCount"] == longest
    with pytest.raises(RequestError, match=f"max_tokens={longest + 1}: .* at most {longest}"):
        llm.generate("a", SamplingParams(max_tokens=longest + 1))


def test_a_chat_is_written_as_the_operator_says() -> None:
    llm, titan = _open()
    talk = [*HELLO, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Bye"}]
    with Stubber(titan.client) as stub:
        sent = _answer(stub, _result(" Bye.\nUser: and more", "LENGTH"))
        (found,) = llm.chat(talk, PARAMS)
    assert sent.body["inputText"] == "User: Hi\nBot: Hello.\nUser: Bye\nBot:"
    assert sent.body["textGenerationConfig"]["stopSequences"] == ["User:"]
    assert (found.text, found.outputs[0].finish_reason) == (" Bye.\n", "stop")


def test_another_form_of_the_prompt() -> None:
    llm, titan = _open(chat_template="titan-langchain")
    with Stubber(titan.client) as stub:
        sent = _answer(stub, _result("x"))
        llm.chat([{"role": "system", "content": "Be brief."}, *HELLO], PARAMS)
    assert sent.body["inputText"] == "Be brief.\n\nUser: Hi\n\nBot:"


def test_prompts_of_amazons_own_client() -> None:
    titan = _open(chat_template="titan-langchain")[1]
    found = prompts.vectors()["titan-langchain"]
    assert found
    for vector in found:
        prompt = titan.turn(vector.messages, PARAMS).prompt
        assert prompt is not None
        assert prompts.sha256(prompt) == vector.sha256


@pytest.mark.parametrize(
    ("field", "value"),
    [("seed", 1), ("n", 2), ("top_k", 3), ("logprobs", 1), ("frequency_penalty", 0.1), ("choice", ["a"])],
)
def test_a_field_without_a_place_is_refused_by_name(field: str, value: Any) -> None:
    llm, titan = _open()
    with Stubber(titan.client), pytest.raises(RequestError, match=f"^{field}=.* has no place for it"):
        llm.generate("a", SamplingParams(**{field: value}))


def test_requests_that_are_refused_here() -> None:
    llm, titan = _open()
    with Stubber(titan.client):
        for says, ask in {
            "takes 0 to 1": lambda: llm.generate("a", SamplingParams(temperature=1.5)),
            "takes text, not token ids": lambda: llm.generate([1, 2]),
            "the prompt is empty": lambda: llm.generate(""),
            "role 'system'": lambda: llm.chat([{"role": "system", "content": "x"}, *HELLO]),
            "makes no vectors": lambda: llm.embed("a"),
        }.items():
            with pytest.raises(RequestError, match=says):
                ask()
    vectors, titan = _open(V2)
    assert (llm.abilities, vectors.abilities) == (["generate"], ["embed"])
    assert (llm.context, vectors.context) == (8192, 8192)
    with Stubber(titan.client):
        for ask in (lambda: vectors.generate("a"), lambda: vectors.chat(HELLO), lambda: vectors.stream("a")):
            with pytest.raises(RequestError, match="makes vectors of texts; use embed"):
                ask()


@pytest.mark.parametrize(
    ("reason", "ours"),
    [
        ("FINISHED", "stop"),
        ("FINISH", "stop"),
        ("STOP_CRITERIA_MET", "stop"),
        ("LENGTH", "length"),
        ("CONTENT_FILTERED", "content_filter"),
    ],
)
def test_reasons(reason: str, ours: str) -> None:
    llm, titan = _open()
    with Stubber(titan.client) as stub:
        _answer(stub, _result("x", reason))
        assert llm.generate("a")[0].outputs[0].finish_reason == ours


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (_result("x", "RAG_QUERY_WHEN_RAG_DISABLED"), "RAG_QUERY_WHEN_RAG_DISABLED"),
        (_result("x", "BECAUSE"), "ended with 'BECAUSE'"),
        (_result("x", None), "no completionReason"),
        ({"results": []}, "no list of one result"),
        ({"results": [{"completionReason": "FINISHED"}]}, "no outputText"),
        ([], "no JSON object"),
        (b"<html>", "something else than JSON"),
        (b" " * 2000, "more than 1,000 bytes"),
    ],
)
def test_answers_that_are_none(answer: object, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bestiary.run.hosted.bedrock.MOST_BYTES", 1000)
    llm, titan = _open()
    with Stubber(titan.client) as stub:
        _answer(stub, answer)
        with pytest.raises(HostedError, match=says):
            llm.generate("a")


@pytest.mark.parametrize("code", [*REMEDIES, "SomethingNewException"])
def test_errors(code: str) -> None:
    llm, titan = _open()
    with Stubber(titan.client) as stub:
        stub.add_client_error("invoke_model", code, "the operator's words", http_status_code=400)
        with pytest.raises(HostedError, match=rf"the operator's words \({code}\)") as error:
            llm.generate("a")
    assert error.value.code == code
    assert error.value.remedy


def test_what_was_retired_is_said_to_be() -> None:
    said = "This model version has reached the end of its life."
    for model, retired in ((EXPRESS, True), (V2, False)):
        llm, titan = _open(model)
        with Stubber(titan.client) as stub:
            stub.add_client_error("invoke_model", "ResourceNotFoundException", said, http_status_code=404)
            with pytest.raises(HostedError, match="end of its life") as error:
                llm.embed("a") if model == V2 else llm.generate("a")
        assert ("retired Titan Text Lite, Express and Premier in 2025" in str(error.value)) is retired


def test_the_wait_is_told() -> None:
    llm, titan = _open()
    with Stubber(titan.client) as stub:
        stub.add_client_error(
            "invoke_model",
            "ThrottlingException",
            "slowly",
            http_status_code=429,
            response_meta={"HTTPHeaders": {"retry-after": "9"}},
        )
        with pytest.raises(HostedError, match="Ask again in 9 seconds") as error:
            llm.generate("a")
    assert error.value.wait == 9


def test_vectors_of_the_first_version() -> None:
    llm, titan = _open(V1)
    with Stubber(titan.client) as stub:
        sent = [_answer(stub, {"embedding": [i, 0.5], "inputTextTokenCount": 2}, V1) for i in range(2)]
        found = llm.embed(["a", "b"])
    assert torch.equal(found, torch.tensor([[0, 0.5], [1, 0.5]]))
    assert [one.body for one in sent] == [{"inputText": "a"}, {"inputText": "b"}]
    for more in ({"dimensions": 256}, {"normalize": True}):
        with pytest.raises(RequestError, match=f"{next(iter(more))}: .* its second version has"):
            llm.embed("a", **more)


def test_vectors_of_the_second_version() -> None:
    llm, titan = _open(V2)
    with Stubber(titan.client) as stub:
        sent = _answer(stub, {"embedding": [0.5] * 256}, V2)
        assert llm.embed("a", dimensions=256, normalize=False).shape == (1, 256)
        assert sent.body == {"inputText": "a", "dimensions": 256, "normalize": False}
        _answer(stub, {"inputTextTokenCount": 2}, V2)
        with pytest.raises(HostedError, match="they are no matrix"):
            llm.embed("a")
        with pytest.raises(RequestError, match="dimensions=300 should be 1024, 512, 256"):
            llm.embed("a", dimensions=300)


EVENTS = [
    {"outputText": "\nOne, ", "index": 0, "completionReason": None, "inputTextTokenCount": 5},
    {"outputText": "你好", "index": 0, "completionReason": None},
    {"outputText": "", "index": 0, "completionReason": "FINISH", "totalOutputTextTokenCount": 4},
]
STREAM = b"".join(map(frame, EVENTS))
KIND = "application/vnd.amazon.eventstream"
INVOKE, LISTEN = "/invoke", "/invoke-with-response-stream"


def _stream(host: Host, *packets: bytes, **more: Any) -> Iterator[Any]:
    host.answers(LISTEN, Reply(kind=KIND, packets=packets, **more))
    return _open()[0].stream("a", PARAMS)


def test_a_stream(bedrock: Host) -> None:
    found = list(_stream(bedrock, *(STREAM[i : i + 1] for i in range(len(STREAM)))))
    assert [chunk.text for chunk in found] == ["\nOne, ", "你好", ""]
    assert [chunk.finish_reason for chunk in found] == [None, None, "stop"]
    (asked,) = bedrock.asked
    assert asked.path == f"/model/{EXPRESS}{LISTEN}"
    assert asked.body["textGenerationConfig"]["maxTokenCount"] == 64
    assert "AWS4-HMAC-SHA256" in asked.headers["Authorization"]
    assert SECRET not in str(asked)


def test_a_stream_that_is_cut_off(bedrock: Host) -> None:
    whole = len(frame(EVENTS[0])) + len(frame(EVENTS[1]))
    for end in (0, 5, whole // 2, whole, whole + 9, len(STREAM) - 1):
        for broken in (False, True):
            with pytest.raises(HostedError):
                list(_stream(bedrock, *([STREAM[:end]] if end else []), broken=broken))


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (
            frame({"message": "slowly"}, event="throttlingException", message="exception"),
            "ThrottlingException",
        ),
        (
            frame({"message": "no"}, event="modelStreamErrorException", message="exception"),
            "ModelStreamError",
        ),
        (frame({}, event="somethingNew"), "cut off"),
        (frame({"completionReason": None}), "no outputText"),
        (frame(7), "no JSON object"),
        (STREAM[:-1] + b"x", "Checksum mismatch"),
    ],
)
def test_a_stream_that_goes_wrong(bedrock: Host, bad: bytes, says: str) -> None:
    found = _stream(bedrock, frame(EVENTS[0]), bad)
    assert next(found).text == "\nOne, "
    with pytest.raises(HostedError, match=says):
        list(found)


def test_the_same_over_the_wire(bedrock: Host) -> None:
    bedrock.json(INVOKE, {"embedding": [1.0]})
    assert _open(V2)[0].embed("a").tolist() == [[1.0]]
    assert bedrock.asked[0].path == f"/model/{V2}{INVOKE}"
    refusal = {"x_amzn_ErrorType": "AccessDeniedException"}
    bedrock.json(INVOKE, {"message": "You don't have access"}, 403, **refusal)
    with pytest.raises(HostedError, match=r"You don't have access \(AccessDeniedException\)"):
        _open()[0].generate("a")


def test_silence_ends(bedrock: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BESTIARY_HOSTED_TIMEOUT", "0.3")
    bedrock.answers(INVOKE, Reply(b"{}", silence=30))
    with pytest.raises(HostedError, match="Read timeout"):
        _open()[0].generate("a")
    found = _stream(bedrock, frame(EVENTS[0]), STREAM, rest=30)
    assert next(found).text == "\nOne, "
    with pytest.raises(HostedError, match="timed out"):
        next(found)


def test_aws_is_not_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(HostedError, match=r"[Cc]redentials.*AWS_PROFILE"):
        _open()[0].generate("a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(HostedError, match="specify a region"):
        _open()
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(HostedError, match=r"profile .*nobody"):
        _open()


def test_without_boto3_the_command_to_type_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(RequestError, match=r"pip install 'bestiary\[hosted\]'"):
        _open()


def test_the_proof_holds_and_sees_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    wire.compare.cache_clear()
    assert wire.compare("titan").holds is True
    assert wire.compare("another").holds is None
    wire.compare.cache_clear()
    monkeypatch.setitem(bedrock_module.PLACES, "top_p", "top_p")
    assert wire.compare("titan").holds is False
    wire.compare.cache_clear()
    monkeypatch.setitem(sys.modules, "boto3", None)
    found = wire.compare("titan")
    assert (found.holds, "pip install" in found.note) == (None, True)
    wire.compare.cache_clear()
