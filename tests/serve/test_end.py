"""How things end: a full queue, a client that leaves, a worker that dies, a signal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.serve.serving import Running, running

CHAT = "/v1/chat/completions"
# Four answers as long as the context lets them be: some seconds of work.
LONG: dict[str, Any] = {
    "messages": [{"role": "user", "content": "hi"}], "n": 4, "ignore_eos": True, "stream": True,
}  # fmt: skip
_PATIENCE = 30.0


@pytest.fixture
def small(chat_model: Path, tmp_path: Path) -> Iterator[Running]:
    """A server of two answers at a time, of which two more may wait."""
    options = ("--max-streams", "2", "--queue", "2", "--grace", "20", "--journal", str(tmp_path / "journal"))
    with running(chat_model, *options, log=tmp_path / "log") as one:
        yield one


def counts(client: httpx2.Client) -> dict[str, float]:
    """The server's counts by name."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {sample.name: sample.value for family in families for sample in family.samples}


def eventually(client: httpx2.Client, **expected: float) -> None:
    """Wait until counts are as they should be."""
    end = time.monotonic() + _PATIENCE
    while True:
        found = counts(client)
        wrong = {name: found.get(name) for name, value in expected.items() if found.get(name) != value}
        if not wrong:
            return
        assert time.monotonic() < end, wrong
        time.sleep(0.02)


def worker_of(server: Running) -> int:
    """The process that holds the model."""
    told = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(server.process.pid)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (found,) = [int(line.split()[0]) for line in told.splitlines() if "bestiary.serve.worker" in line]
    return found


def begun(client: httpx2.Client, fields: dict[str, Any]) -> tuple[httpx2.Response, Iterator[str]]:
    """A stream whose first tokens have come."""
    response = client.send(client.build_request("POST", CHAT, json=fields), stream=True)
    assert response.status_code == 200
    lines = response.iter_lines()
    for line in lines:
        if '"content":' in line and '"content":""' not in line:
            break
    return response, lines


def test_clients_that_leave_free_every_page(server: Running, client: httpx2.Client) -> None:
    eventually(client, bestiary_open_requests=0, bestiary_engine_running=0, bestiary_engine_waiting=0)
    before = counts(client)
    held = before["bestiary_engine_free"] + before["bestiary_engine_cached"]
    for i in range(12):
        fields = LONG | {
            "n": 1 + i % 4,
            "stream": i % 3 > 0,
            "messages": [{"role": "user", "content": "x" * i}],
        }
        if fields["stream"]:
            response, _ = begun(client, fields)
            response.close()
        else:
            with suppress(httpx2.TimeoutException):
                client.post(CHAT, json=fields, timeout=0.02 * (1 + i % 5))
    eventually(client, bestiary_open_requests=0, bestiary_engine_running=0, bestiary_engine_waiting=0)
    after = counts(client)
    assert after["bestiary_engine_free"] + after["bestiary_engine_cached"] == held
    assert after["bestiary_worker_restarts"] == before["bestiary_worker_restarts"]


def test_a_full_queue_a_dead_worker_and_a_signal(small: Running) -> None:
    with small.client() as client:
        fresh = counts(client)
        assert fresh["bestiary_engine_free"] == fresh["bestiary_engine_pages"] > 0
        _check_full(client)
        _check_death(small, client)
        ids = _check_signal(small, client)
    assert small.process.wait(_PATIENCE) == 0
    journal = [json.loads(line) for line in (small.log.parent / "journal").read_text().splitlines()]
    assert {line["id"] for line in journal} >= {ids[0]}
    steps = [line["step"] for line in journal if line["id"] == ids[0]]
    assert steps == list(range(len(ids[1])))
    assert [line["token"] for line in journal if line["id"] == ids[0]] == ids[1]


def _check_full(client: httpx2.Client) -> None:
    response, _ = begun(client, LONG)
    refused = client.post("/v1/completions", json={"prompt": "x"})
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["type"] == "rate_limit_error"
    response.close()
    eventually(client, bestiary_open_requests=0)
    assert client.post("/v1/completions", json={"prompt": "x"}).status_code == 200


def _check_death(server: Running, client: httpx2.Client) -> None:
    streams = [begun(client, LONG | {"n": 1}) for _ in range(2)]
    os.kill(worker_of(server), signal.SIGKILL)
    for _, lines in streams:
        last = [line for line in lines if line][-1]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "worker_lost"
    assert client.get("/health").status_code == 503
    refused = client.post("/v1/completions", json={"prompt": "x"})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    end = time.monotonic() + _PATIENCE
    while client.get("/health").status_code != 200:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert client.post("/v1/completions", json={"prompt": "x"}).status_code == 200
    assert counts(client)["bestiary_worker_restarts"] == 1


def _check_signal(server: Running, client: httpx2.Client) -> tuple[str, list[int]]:
    """Ask to stop under a stream, which ends as it should; return its id and its tokens."""
    whole: list[dict[str, Any]] = []
    with client.stream("POST", CHAT, json=LONG | {"n": 1, "return_token_ids": True}) as response:
        lines = response.iter_lines()
        whole.append(json.loads(next(lines).removeprefix("data: ")))
        server.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + _PATIENCE
        while (state := client.get("/health").json()["status"]) == "ok" and time.monotonic() < end:
            time.sleep(0.01)
        assert state == "stopping"
        refused = client.post("/v1/completions", json={"prompt": "x"})
        assert (refused.status_code, refused.headers["connection"]) == (503, "close")
        data = [line.removeprefix("data: ") for line in lines if line]
    assert data[-1] == "[DONE]"
    whole += map(json.loads, data[:-1])
    choices = [choice for part in whole for choice in part["choices"]]
    assert choices[-1]["finish_reason"] == "length"
    return whole[0]["id"], [id for choice in choices for id in choice.get("token_ids", ())]


def test_a_second_signal_ends_open_streams_with_an_error(chat_model: Path, tmp_path: Path) -> None:
    with running(chat_model, log=tmp_path / "log") as one, one.client() as client:
        _, lines = begun(client, LONG | {"n": 16})
        one.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        one.process.send_signal(signal.SIGINT)
        last = [line for line in lines if line][-1]
        assert "error" in json.loads(last.removeprefix("data: "))
        assert one.process.wait(_PATIENCE) == 0


def test_a_model_that_cannot_be_opened_ends_the_command(chat_model: Path, tmp_path: Path) -> None:
    from tests.serve.serving import BESTIARY

    broken = tmp_path / "broken"
    broken.mkdir()
    for file in chat_model.iterdir():
        (broken / file.name).write_bytes(file.read_bytes()[: 2000 if file.suffix == ".safetensors" else None])
    ended = subprocess.run(
        [*BESTIARY, "serve", str(broken), "--port", "0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert "error:" in ended.stderr
    assert "Traceback" not in ended.stderr
