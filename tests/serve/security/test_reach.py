"""What the server reaches: no other machine, no file but its own, whatever a request says."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.serve.errors import problem
from tests.serve.security.conftest import Watched
from tests.serve.security.sockets import request, send

_MARK = "zq-never-opened"  # is in every name, so that an event that comes of one is known


def _names() -> list[str]:
    """Two hundred names that mean another file somewhere."""
    roots = [
        "",
        "/",
        "./",
        "../",
        "../" * 8,
        "..\\",
        "C:\\",
        "C:/",
        "\\\\host\\share\\",
        "//host/share/",
        "file://",
    ]
    roots += [
        "file:///",
        "http://127.0.0.1:9/",
        "https://example.org/",
        "hf://",
        "s3://bucket/",
        "~/",
        "~root/",
    ]
    roots += ["/proc/self/fd/", "/dev/fd/", "/proc/self/root/", "%2e%2e%2f", "..%2f", "%252e%252e/", "....//"]
    roots += ["\u2025/", "\uff0e\uff0e/", "..\u2215", "..\u2044", "\u202e", "link/", "link/../", "./link/"]
    tails = ["{}", "{}\0", "{}\r\nX: y", "{}.py", "{}/../../{}", " {} "]
    names = [root + tail.format(_MARK, _MARK) for root in roots for tail in tails]
    return [*names, _MARK + "a" * 300, _MARK + "/" * 300, "CON." + _MARK]


def _asked(watched: Watched, path: str, body: dict[str, Any]) -> tuple[int, str | None]:
    data = json.dumps(body).encode()
    headers = ("Content-Type: application/json", f"Authorization: Bearer {watched.server.key}")
    reply = send(watched.server.port, request("POST", path, body=data, headers=headers))
    wrong = problem(reply.status, reply.headers.get("content-type", ""), reply.body, json.dumps(body))
    return reply.status, wrong


def _opened(watched: Watched) -> list[Any]:
    return [one for one in watched.seen() if any(_MARK in arg or "outside" in arg for arg in one[1])]


def test_there_are_two_hundred_names() -> None:
    assert len(_names()) >= 200


@pytest.mark.parametrize("field", ["model", "lora_name", "lora_path", "unload"])
def test_no_name_opens_a_file(watched: Watched, field: str) -> None:
    bodies: dict[str, tuple[str, Any]] = {
        "model": (
            "/v1/chat/completions",
            lambda name: {"messages": [{"role": "user", "content": "a"}], "model": name},
        ),
        "lora_name": ("/v1/load_lora_adapter", lambda name: {"lora_name": name, "lora_path": "none"}),
        "lora_path": ("/v1/load_lora_adapter", lambda name: {"lora_name": "one", "lora_path": name}),
        "unload": ("/v1/unload_lora_adapter", lambda name: {"lora_name": name}),
    }
    path, body = bodies[field]
    inside = str(watched.adapters)
    for name in _names():
        status, wrong = _asked(watched, path, body(name))
        assert (status in (400, 404, 422), wrong) == (True, None), (name, status, wrong)
    # Under the one folder that the operator named it may look; a name in it that is a link leads out.
    found = [one for one in _opened(watched) if not any(f"'{inside}/{_MARK}" in arg for arg in one[1])]
    assert found == []


def test_a_model_in_a_path_opens_no_file(watched: Watched) -> None:
    for name in _names():
        spelt = "".join(c if c.isalnum() or c in "/.-" else f"%{b:02x}" for c in name for b in c.encode()[:1])
        headers = (f"Authorization: Bearer {watched.server.key}",)
        reply = send(watched.server.port, request("GET", f"/v1/models/{spelt}", headers=headers))
        assert reply.status in (400, 404), (name, reply)
    assert [one for one in _opened(watched) if not any(str(watched.adapters) in arg for arg in one[1])] == []


@pytest.mark.parametrize("kind", ["fifo", "a link outside", "a file", "empty", "a link to a device"])
def test_no_adapter_that_is_no_folder_blocks(watched: Watched, kind: str) -> None:
    """A pipe with no writer blocks whoever opens it (CVE-2026-69112)."""
    folder = watched.adapters / kind.replace(" ", "-")
    if kind == "a file":
        folder.write_text("{}")
    elif kind == "a link outside":
        folder.symlink_to(watched.adapters.parent / "outside")
    else:
        folder.mkdir()
    if kind == "fifo":
        os.mkfifo(folder / "adapter_config.json")
        os.mkfifo(folder / "adapter_model.safetensors")
    if kind == "a link to a device":
        (folder / "adapter_config.json").symlink_to("/dev/zero")
        (folder / "adapter_model.safetensors").symlink_to("/dev/random")
    asked = _asked(watched, "/v1/load_lora_adapter", {"lora_name": "one", "lora_path": folder.name})
    assert (asked[0] in (400, 404), asked[1]) == (True, None), asked
    with watched.server.client() as client:
        assert client.get("/health").status_code == 200


_URL = "http://192.0.2.1/picture.png"
_FETCHES: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": _URL}}]}]},
    {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": _URL}}]}]},
    {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": _URL}}]}]},
    {
        "messages": [
            {"role": "user", "content": [{"type": "video_url", "video_url": {"url": "file:///etc/passwd"}}]}
        ]
    },
    {"messages": [{"role": "user", "content": f"![a]({_URL}) <img src='{_URL}'>"}], "max_tokens": 2},
    {"messages": [{"role": "user", "content": "a"}], "model": _URL},
    {"messages": [{"role": "user", "content": "a"}], "api_base": _URL},
    {"messages": [{"role": "user", "content": "a"}], "base_url": _URL},
    {"messages": [{"role": "user", "content": "a"}], "tools": [{"type": "web_search"}]},
    {"messages": [{"role": "user", "content": "a"}], "web_search_options": {}},
    {"messages": [{"role": "user", "content": "a"}], "tools": [{"type": "mcp", "server_url": _URL}]},
    {"messages": [{"role": "user", "content": "a"}], "prompt_embeds": "AAAA"},
    {
        "messages": [{"role": "user", "content": "a"}],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "a", "schema": {"$ref": "http://192.0.2.1/schema.json"}},
        },
    },
    {
        "messages": [{"role": "user", "content": "a"}],
        "structured_outputs": {"json": {"$ref": "file:///etc/passwd"}},
    },
]


@pytest.mark.parametrize("body", _FETCHES, ids=lambda body: json.dumps(body)[40:110])
def test_nothing_is_fetched(watched: Watched, body: dict[str, Any]) -> None:
    status, wrong = _asked(watched, "/v1/chat/completions", body)
    assert wrong is None
    assert status in (200, 400, 404, 422)
    assert (status == 200) == ("![a]" in json.dumps(body)), "text is text; all else is refused"


def test_nothing_leaves_the_machine(watched: Watched, unlocked: Watched) -> None:
    """Over all that the tests above have asked; also where the worker and the template's child are."""
    for one in (watched, unlocked):
        assert len(one.processes()) >= 2, "the worker is watched too"
        events = [event for event in one.seen() if event[0].startswith("socket.")]
        local = ("'127.0.0.1'", "'localhost'", "'::1'")
        assert [event for event in events if not any(name in arg for arg in event[1] for name in local)] == []
        assert not [
            event for event in one.seen() if event[0] in ("os.system", "os.remove", "os.rename", "os.mkdir")
        ]
