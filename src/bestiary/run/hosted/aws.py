"""boto3 for Bedrock: its client, and its errors as HostedError. It is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ...errors import HostedError, RequestError
from .endpoint import timeout, wait_of

MOST_BYTES = 64 << 20  # of an answer
_MOST_MESSAGE = 500

# What to do about each error of botocore's service model for bedrock-runtime, and of AWS's front door.
REMEDIES: Mapping[str, str] = {
    "AccessDeniedException": "Ask for access to the model in Bedrock's console; allow bedrock:InvokeModel",
    "InternalServerException": "Ask again",
    "ModelErrorException": "Ask again",
    "ModelNotReadyException": "Ask again in a minute",
    "ModelStreamErrorException": "Ask again",
    "ModelTimeoutException": "Ask for a shorter answer",
    "ResourceNotFoundException": "Look at the model's name, and at which regions have it: AWS_DEFAULT_REGION",
    "ServiceQuotaExceededException": "Ask for a higher quota in the Service Quotas console",
    "ServiceUnavailableException": "Ask again later",
    "ThrottlingException": "Wait a second, and twice as long each time that it is said again",
    "ValidationException": "Look at what Bedrock's user guide allows for this model",
    "ExpiredTokenException": "Log in to AWS again",
    "InvalidSignatureException": "Look at the keys of AWS, and at this machine's clock",
    "UnrecognizedClientException": "Look at the keys of AWS: aws sts get-caller-identity",
}
_RETIRED = "Amazon retired Titan Text Lite, Express and Premier in 2025; their embeddings are other models"


def client(model: str) -> Any:
    """Return boto3's client of bedrock-runtime, with AWS's own chain of keys and regions.

    Raises RequestError where boto3 is not installed, HostedError where no region is set.
    """
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise RequestError(
            f"{model} is asked through boto3, which is not installed. Type: pip install 'bestiary[hosted]'"
        ) from error
    with translated(model, ""):
        # A session of its own: boto3's shared one keeps the keys that it found first.
        return boto3.Session().client(
            "bedrock-runtime", config=Config(connect_timeout=10, read_timeout=timeout())
        )


@contextmanager
def translated(name: str, model: str) -> Iterator[None]:
    """Raise as HostedError what boto3 raises. name: as it was typed; model: its operator's id."""
    from botocore.eventstream import ParserError
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError  # of a stream: botocore leaves those as they are

    try:
        yield
    except ClientError as error:
        raise _refused(name, model, error.response) from None
    except (HTTPClientError, HTTPError, ParserError, ResponseParserError) as error:
        remedy = "Look at the network, and at AWS_DEFAULT_REGION"
        raise HostedError(name, _cut(str(error)), remedy=remedy) from None
    except BotoCoreError as error:
        remedy = "Look at how AWS is set up: AWS_PROFILE, AWS_DEFAULT_REGION, ~/.aws; aws configure writes it"
        raise HostedError(name, _cut(str(error)), remedy=remedy) from None


def _refused(name: str, model: str, response: Any) -> HostedError:
    """Return the error of an answer. One within a stream has its code in lower case first."""
    said = response.get("Error", {})
    code = str(said.get("Code") or "unknown")
    code = code[:1].upper() + code[1:]
    wait = wait_of(response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("retry-after"))
    remedy = REMEDIES.get(code, "See the user guide of Amazon Bedrock")
    if code == "ResourceNotFoundException" and model.startswith("amazon.titan-text-"):
        remedy = _RETIRED
    if wait is not None:
        remedy = f"Ask again in {wait:.0f} seconds"
    return HostedError(name, _cut(str(said.get("Message") or "refused")), code=code, remedy=remedy, wait=wait)


def _cut(text: str) -> str:
    plain = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * _MOST_MESSAGE]).split())
    return plain[:_MOST_MESSAGE].rstrip(".")
