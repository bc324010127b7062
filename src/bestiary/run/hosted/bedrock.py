"""Amazon Titan through AWS Bedrock: the bodies that Titan reads and writes, carried by boto3.

Source: AWS's "Amazon Titan Text models" and "Amazon Titan Embeddings Text" (Bedrock user guide), and
botocore's model of the service, bedrock-runtime 2023-09-30. Keys, regions, proxies and retries are boto3's
affair: the environment, ~/.aws, or the machine's own role.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ... import roster
from ...errors import HostedError, RequestError
from ...files import strict_json
from ...text import prompts
from ...text.bare import bare
from ...text.chat import ChatTemplate
from ..generate import FinishReason
from ..params import SamplingParams, show
from . import Name
from .aws import MOST_BYTES, client, translated
from .operator import Answered, Json, Piece, Request, Usage, Vectors, placed

PLACES = {
    "temperature": "temperature",
    "top_p": "topP",
    "max_tokens": "maxTokenCount",
    "stop": "stopSequences",
}
REASONS: Mapping[str, FinishReason] = {
    "FINISHED": "stop",
    "FINISH": "stop",  # as it stands in recorded answers
    "STOP_CRITERIA_MET": "stop",
    "LENGTH": "length",
    "CONTENT_FILTERED": "content_filter",
}
# The fifth that is documented, and no answer: the query "cannot be completed".
UNANSWERED = "RAG_QUERY_WHEN_RAG_DISABLED"

_TEXT = re.compile(r"amazon\.titan-text-(\w+)-v\d+(:\w+)*", re.ASCII)
_EMBED = re.compile(r"amazon\.titan-embed-text-v([12])(:\w+)*", re.ASCII)
_LONGEST = {"lite": 4096, "express": 8192, "premier": 3072}  # tokens of an answer
_DIMENSIONS = (1024, 512, 256)


class Titan:
    """One model of Amazon's. chat_template: titan (unless told), or titan-langchain, as AWS's client has it.

    connection: boto3's client; None makes one. Raises RequestError for a model that speaks another form, and
    where boto3 is not installed; HostedError where AWS is not set up on this machine.
    """

    def __init__(self, name: Name, chat_template: str | None = None, connection: Any = None) -> None:
        self.name, self._model = str(name), name.model
        text, vectors = _TEXT.fullmatch(name.model), _EMBED.fullmatch(name.model)
        if not text and not vectors:
            raise RequestError(
                f"{self.name}: of Bedrock's models only Titan Text and Titan Text Embeddings are spoken to\n"
                "Try: bedrock:amazon.titan-embed-text-v2:0"
            )
        self.abilities = ["generate"] if text else ["embed"]
        self._longest = _LONGEST.get(text[1]) if text else None
        self._version = int(vectors[1]) if vectors else 0
        self.context = _context(name.model)
        self.template = _template(chat_template) if text else None
        self.client = client(self.name) if connection is None else connection

    def continuation(self, prompt: str | Sequence[int], params: SamplingParams) -> Request:
        """Return the request to continue a text."""
        if not isinstance(prompt, str):
            raise RequestError(f"{self.name} takes text, not token ids: its tokenizer was never published")
        if not prompt:
            raise RequestError("the prompt is empty; give at least one character")
        return self._request(prompt, params, ())

    def turn(self, messages: Sequence[Mapping[str, Any]], params: SamplingParams) -> Request:
        """Return the request to answer a conversation."""
        if self.template is None:
            raise self._cannot("answer")
        prompt = self.template.encode(messages)
        if prompt.dropped:
            i = prompt.dropped[0]
            raise RequestError(f"message {i}: the format {self.template.name} has no place for it")
        return self._request(prompt.text, params, self.template.stop_texts)

    def _request(self, prompt: str, params: SamplingParams, ends: Sequence[str]) -> Request:
        if self.template is None:
            raise self._cannot("generate")
        config = placed(params, PLACES, self.name)
        if params.temperature > 1:
            raise RequestError(f"temperature={params.temperature:g}: {self.name} takes 0 to 1")
        stops = tuple(dict.fromkeys((*(params.stop or ()), *ends)))
        config |= {"maxTokenCount": self._most(params.max_tokens), "stopSequences": list(stops)}
        return Request(prompt, self._model, {"inputText": prompt, "textGenerationConfig": config}, stops)

    def _most(self, asked: int | None) -> int:
        if asked is None and self._longest is None:
            raise RequestError(
                f"max_tokens=None: how long {self.name} may answer is not known; give a number"
            )
        if asked is not None and asked > (self._longest or asked):
            raise RequestError(f"max_tokens={asked}: {self.name} answers with at most {self._longest}")
        return asked or self._longest or 0

    def _cannot(self, what: str) -> RequestError:
        return RequestError(f"{self.name} cannot {what}: it makes vectors of texts; use embed")

    def ask(self, request: Request) -> Answered:
        """Return the answer, whole."""
        said = self._invoke(request.body)
        results = said.get("results")
        if not isinstance(results, list) or len(results) != 1 or not isinstance(results[0], dict):
            raise HostedError(self.name, "its answer is not of Titan's form: it has no list of one result")
        piece = self._piece(results[0])
        if piece.reason is None:
            raise HostedError(self.name, "its answer has no completionReason")
        counts = (said.get("inputTextTokenCount"), results[0].get("tokenCount"))
        return Answered((piece,), Usage(*(count if isinstance(count, int) else None for count in counts)))

    def listen(self, request: Request) -> Generator[Piece]:
        """Yield the answer as it comes."""
        with translated(self.name, self._model):
            body = self.client.invoke_model_with_response_stream(**self._sent(request.body))["body"]
        try:
            yield from self.pieces(body)
        finally:
            body.close()

    def pieces(self, events: Iterable[Mapping[str, Any]]) -> Iterator[Piece]:
        """Yield what the events of a stream hold; what boto3 raises within it is a HostedError."""
        with translated(self.name, self._model):
            for event in events:
                if "chunk" not in event:
                    raise HostedError(self.name, f"an event of an unknown kind came: {show(sorted(event))}")
                yield self._piece(self._json(event["chunk"].get("bytes", b"")))

    def embed(
        self, texts: Sequence[str], dimensions: int | None, normalize: bool | None
    ) -> Iterator[Vectors]:
        """Yield the vector of one text after another. dimensions and normalize: of the second version."""
        if not self._version:
            raise RequestError(f"{self.name} makes no vectors\nTry: bedrock:amazon.titan-embed-text-v2:0")
        more = {"dimensions": dimensions, "normalize": normalize}
        if self._version == 1 and (set_ := [key for key, value in more.items() if value is not None]):
            raise RequestError(f"{set_[0]}: {self.name} has no place for it; its second version has")
        if dimensions is not None and dimensions not in _DIMENSIONS:
            raise RequestError(f"dimensions={show(dimensions)} should be {', '.join(map(str, _DIMENSIONS))}")
        for text in texts:
            given = {key: value for key, value in more.items() if value is not None}
            yield [self._invoke({"inputText": text, **given}).get("embedding", [])]

    def close(self) -> None:
        """Close boto3's connections."""
        self.client.close()

    def _invoke(self, body: Json) -> Json:
        with translated(self.name, self._model):
            answer = self.client.invoke_model(**self._sent(body))
            data: bytes = answer["body"].read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise HostedError(self.name, f"more than {MOST_BYTES:,} bytes came in one answer")
        return self._json(data)

    def _sent(self, body: Json) -> Json:
        """Return boto3's arguments for a body."""
        form = "application/json"
        data = json.dumps(body, ensure_ascii=False, allow_nan=False)
        return {"modelId": self._model, "contentType": form, "accept": form, "body": data.encode()}

    def _json(self, data: bytes) -> Json:
        try:
            said = strict_json.parse(data)
        except strict_json.InvalidJSONError as error:
            raise HostedError(self.name, f"it answered something else than JSON: {error}") from error
        if not isinstance(said, dict):
            raise HostedError(self.name, "its answer is not of Titan's form: it is no JSON object")
        return said

    def _piece(self, said: Json) -> Piece:
        text, reason = said.get("outputText"), said.get("completionReason")
        if not isinstance(text, str):
            raise HostedError(self.name, "its answer is not of Titan's form: it has no outputText")
        if reason is None:
            return Piece(text)
        if reason == UNANSWERED:
            raise HostedError(self.name, "the query cannot be completed: retrieval is off", code=reason)
        if not isinstance(reason, str) or reason not in REASONS:
            known = ", ".join([*REASONS, UNANSWERED])
            raise HostedError(self.name, f"its answer ended with {show(reason)}, which is none of {known}")
        return Piece(text, REASONS[reason])


def _template(asked: str | None) -> ChatTemplate:
    """Return a format over bytes: what Titan's tokens are, nobody outside of AWS knows."""
    format_ = prompts.get(asked or "titan")
    if format_.needs:
        raise RequestError(f"chat_template={show(asked)} is written in control tokens, and Titan takes text")
    return ChatTemplate(format_, bare(()))


def _context(model: str) -> int:
    """Return the tokens of prompt and answer together that the roster says, or 0."""
    entry = roster.find("titan")
    known = {one.id: one.context for one in entry.checkpoints} if entry else {}
    return known.get(model) or 0
