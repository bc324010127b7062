"""Hosted models: what goes over the wire, against what its operator documents.

wire.json holds documented requests and answers. Requests are checked by botocore against its own model of the
service, and answers come from its stub: nothing is sent, and no key is needed.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from ..errors import BestiaryError, HostedError
from ..run.hosted import Name
from ..run.hosted.aws import REMEDIES, translated
from ..run.hosted.bedrock import Titan
from ..run.hosted.operator import Request, chunks
from ..run.params import SamplingParams
from .finding import Finding

Json = dict[str, Any]
Check = tuple[str, bool]

_OPERATIONS = ("InvokeModel", "InvokeModelWithResponseStream")


@cache
def compare(name: str) -> Finding:
    """Return whether requests and answers of a hosted system have the documented form."""
    said = json.loads((files(__package__) / "wire.json").read_text("utf-8"))
    if name not in said:
        return Finding(f"wire {name}", None, note="nothing is known of its form")
    try:
        import boto3  # noqa: F401 (is it installed?)
    except ImportError:
        return Finding(f"wire {name}", None, note="boto3 is not installed: pip install 'bestiary[hosted]'")
    try:
        checks = list(_checks(said[name]))
    except BestiaryError as error:
        return Finding(f"wire {name}", False, note=str(error))
    wrong = [what for what, holds in checks if not holds]
    return Finding(
        f"wire {name}: {len(checks)} requests, answers and errors", not wrong, note=", ".join(wrong)
    )


def _checks(said: Json) -> Iterator[Check]:
    for case in said["text"]:
        yield _text(case)
        yield f"{case['model']}: its request as a stream", _streams(case)
    for case in said["vectors"]:
        titan, stub = _stubbed(case["model"])
        with _answering(stub, case["model"], case["request"], case["answer"]):
            found = next(iter(titan.embed([case["request"]["inputText"]], *_options(case))))
        yield f"{case['model']}: vectors", found == [case["read"]]
    titan, _ = _stubbed(said["text"][0]["model"])
    for reason, ours in said["reasons"].items():
        yield f"completionReason {reason}", _reason(titan, reason) == ours
    events = [{"chunk": {"bytes": json.dumps(event).encode()}} for event in said["stream"]["events"]]
    yield "stream", [[piece.text, piece.reason] for piece in titan.pieces(events)] == said["stream"]["read"]
    for shape in _errors(titan):
        yield f"error {shape.name}", _raised(shape.name, shape.metadata["error"]["httpStatusCode"])


def _text(case: Json) -> Check:
    titan, stub = _stubbed(case["model"])
    request = _request(titan, case)
    with _answering(stub, case["model"], case["request"], case["answer"]):
        answered = titan.ask(request)
    found = list(chunks(answered.pieces, request, titan.name))
    read = {
        "text": "".join(one.text for one in found),
        "reason": found[-1].finish_reason,
        "prompt_tokens": answered.usage.prompt_tokens,
        "tokens": answered.usage.tokens,
    }
    return f"{case['model']}: answer", read == case["read"]


def _request(titan: Titan, case: Json) -> Request:
    params = SamplingParams(**case["params"])
    return (
        titan.turn(case["messages"], params)
        if "messages" in case
        else titan.continuation(case["prompt"], params)
    )


def _streams(case: Json) -> bool:
    """Whether botocore takes a request for a stream. Its stub has no streams, so the answer is an error."""
    titan, stub = _stubbed(case["model"])
    stub.add_client_error(
        "invoke_model_with_response_stream",
        "ModelNotReadyException",
        http_status_code=429,
        expected_params=_sent(case["model"], case["request"]),
    )
    with stub:
        return _code(lambda: list(titan.listen(_request(titan, case)))) == "ModelNotReadyException"


def _reason(titan: Titan, reason: str) -> str | None:
    event = {"chunk": {"bytes": json.dumps({"outputText": "", "completionReason": reason}).encode()}}
    try:
        return next(titan.pieces([event])).reason
    except HostedError as error:
        return None if error.code == reason else "another error"


def _errors(titan: Titan) -> list[Any]:
    """Return the errors that botocore's model of the service declares for these calls."""
    model = titan.client.meta.service_model
    shapes = [shape for name in _OPERATIONS for shape in model.operation_model(name).error_shapes]
    return list({shape.name: shape for shape in shapes}.values())


def _raised(code: str, status: int) -> bool:
    titan, stub = _stubbed("amazon.titan-text-express-v1")
    stub.add_client_error("invoke_model", code, "why", http_status_code=status)
    with stub:
        return (
            code in REMEDIES and _code(lambda: titan.ask(titan.continuation("a", SamplingParams()))) == code
        )


def _code(ask: Callable[[], object]) -> str | None:
    try:
        ask()
    except HostedError as error:
        return error.code
    return None


def _options(case: Json) -> tuple[int | None, bool | None]:
    return case["options"].get("dimensions"), case["options"].get("normalize")


def _stubbed(model: str) -> tuple[Titan, Any]:
    """Return a model whose client is a stub; its keys open nothing."""
    import boto3
    from botocore.stub import Stubber

    name = Name("bedrock", model)
    with translated(str(name), model):  # a profile in the environment that is none
        session = boto3.Session("none", "none", region_name="us-east-1")
        client = session.client("bedrock-runtime")
    return Titan(name, connection=client), Stubber(client)


def _answering(stub: Any, model: str, request: Json, answer: Json) -> Any:
    """Return the stub that answers this request alone."""
    from botocore.response import StreamingBody

    data = json.dumps(answer).encode()
    body = {"body": StreamingBody(io.BytesIO(data), len(data)), "contentType": "application/json"}
    stub.add_response("invoke_model", body, _sent(model, request))
    return stub


def _sent(model: str, request: Json) -> Json:
    form = "application/json"
    return {"modelId": model, "contentType": form, "accept": form, "body": _Same(request)}


class _Same:
    """Equals the bytes of the same JSON."""

    def __init__(self, value: Json) -> None:
        self._value = value

    def __eq__(self, data: object) -> bool:
        return isinstance(data, bytes) and json.loads(data) == self._value

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return json.dumps(self._value)
