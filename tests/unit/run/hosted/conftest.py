"""A host on this machine, and an environment in which nobody's keys are."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests import hosts

SECRET = "sk-not-a-real-key-0123456789"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("AWS_", "OPENAI_", "BESTIARY_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIANOTAREALKEY",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def host() -> Iterator[hosts.Host]:
    with hosts.host() as found:
        yield found


@pytest.fixture
def bedrock(host: hosts.Host, monkeypatch: pytest.MonkeyPatch) -> hosts.Host:
    """A host that boto3 takes for Bedrock."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", host.url)
    return host
