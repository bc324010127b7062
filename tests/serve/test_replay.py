"""An answer tells all that it depends on, and from that it is computed again, token for token."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bestiary import cli
from bestiary.serve.weights import sha256

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
def told(client: httpx2.Client) -> dict[str, Any]:
    """An answer that tells what it depends on."""
    body = {"messages": HI, "max_tokens": 9, "n": 2, "logit_bias": {"70": 2.5}, "return_replay": True}
    said: dict[str, Any] = client.post("/v1/chat/completions", json=body).json()
    return said


def run(told: dict[str, Any], model: Path, tmp_path: Path) -> int:
    file = tmp_path / "answer.json"
    file.write_text(json.dumps(told))
    return cli.main(["replay", str(file), str(model), "--threads", "1", "--json"])


def test_an_answer_is_computed_again(
    told: dict[str, Any], chat_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(told, chat_model, tmp_path) == cli.DONE
    said = json.loads(capsys.readouterr().out)
    assert said["same"] is True
    assert said["warnings"] == []
    assert [len(one["told"]) for one in said["answers"]] == [9, 9]


def test_another_token_another_prompt_and_other_weights_are_seen(
    told: dict[str, Any], chat_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told["replay"]["token_ids"][0][3] ^= 1
    told["replay"]["prompt_sha256"] = "0" * 64
    told["replay"]["weights_sha256"] = "0" * 64
    assert run(told, chat_model, tmp_path) == 1
    said = json.loads(capsys.readouterr().out)
    assert [one["same"] for one in said["answers"]] == [False, True]
    assert len(said["warnings"]) == 2


def test_a_stream_tells_the_same(told: dict[str, Any], client: httpx2.Client) -> None:
    body = {"messages": HI, "max_tokens": 9, "stream": True, "return_replay": True}
    body |= {"n": 2, "logit_bias": {"70": 2.5}, "seed": told["replay"]["seed"]}
    lines = client.post("/v1/chat/completions", json=body).text.splitlines()
    parts = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert [part["replay"] for part in parts if "replay" in part] == [told["replay"]]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"replay": 1}', '{"replay": {"seed": 1}}'])
def test_a_file_that_is_no_answer_is_refused(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "answer.json"
    file.write_text(content)
    assert cli.main(["replay", str(file)]) == cli.USAGE
    assert "Traceback" not in capsys.readouterr().err


def test_the_hash_of_weights_is_of_the_hashes_of_their_files(tmp_path: Path) -> None:
    for name in ("b.safetensors", "a.safetensors", "config.json"):
        (tmp_path / name).write_bytes(name.encode())
    lines = "".join(
        f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n"
        for name in ("a.safetensors", "b.safetensors")
    )
    assert sha256(tmp_path) == hashlib.sha256(lines.encode()).hexdigest()
