"""A Hugging Face hub on 127.0.0.1: the part of its protocol that a download speaks, with faults to order."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER_COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
LARGE = (".safetensors", ".bin", ".gguf")  # kept elsewhere and named by their SHA-256, as Git LFS does


@dataclass
class Repo:
    files: dict[str, bytes]
    commits: dict[str, str] = field(default_factory=lambda: {"main": COMMIT})
    # (status, X-Error-Code) in place of every answer; and what a reader must send to be let in.
    refusal: tuple[int, str] | None = None
    token: str | None = None
    # Sends this many bytes of each large file, then does what `fault` says.
    cut_at: int | None = None
    fault: Callable[[], None] = lambda: None


@dataclass
class Hub:
    repos: dict[str, Repo] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, Range
    url: str = ""

    def add(self, name: str, files: dict[str, bytes], **more: object) -> Repo:
        self.repos[name] = Repo(files, **more)  # type: ignore[arg-type]
        return self.repos[name]

    def sent(self) -> set[str]:
        """The names of the files whose contents were asked for."""
        return {
            path.rsplit("/", 1)[-1]
            for method, path, _ in self.asked
            if method == "GET" and "/api/" not in path
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        self.hub.asked.append((self.command, unquote(path), self.headers.get("Range")))
        # A branch may hold a slash, which arrives as %2F.
        parts = [unquote(part) for part in path.removeprefix("/api/models").strip("/").split("/")]
        repo = self.hub.repos.get("/".join(parts[:2]))
        if repo is None:
            self._send(401 if path.startswith("/api") else 404, b"", {"X-Error-Code": "RepoNotFound"})
        elif repo.refusal is not None:
            self._send(repo.refusal[0], b"no", {"X-Error-Code": repo.refusal[1]} if repo.refusal[1] else {})
        elif repo.token is not None and self.headers.get("Authorization") != f"Bearer {repo.token}":
            self._send(401, b"", {"X-Error-Code": "GatedRepo"})
        elif path.startswith("/api"):
            self._describe(repo, parts)
        else:
            self._file(repo, parts[3], "/".join(parts[4:]))

    def _describe(self, repo: Repo, parts: list[str]) -> None:
        revision = parts[3] if len(parts) > 3 else "main"
        commit = repo.commits.get(revision, revision if revision in repo.commits.values() else "")
        if not commit:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            return
        rows = [
            {"type": "file", "path": path, "size": len(data), "oid": _oid(data)}
            for path, data in repo.files.items()
        ]
        for row in rows:
            if str(row["path"]).endswith(LARGE):
                sha = hashlib.sha256(repo.files[str(row["path"])]).hexdigest()
                row["lfs"] = {"sha256": sha, "oid": sha, "size": row["size"], "pointerSize": 130}
        if len(parts) > 2 and parts[2] == "tree":
            self._send(200, json.dumps(rows).encode(), {})
            return
        siblings = [{"rfilename": row["path"], "size": row["size"], "blobId": row["oid"]} for row in rows]
        told = {"id": "/".join(parts[:2]), "sha": commit, "siblings": siblings, "tags": [], "private": False}
        self._send(200, json.dumps(told).encode(), {})

    def _file(self, repo: Repo, revision: str, name: str) -> None:
        data = repo.files.get(name)
        commit = repo.commits.get(revision, revision)
        if data is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        large = name.endswith(LARGE)
        etag = hashlib.sha256(data).hexdigest() if large else _oid(data)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        start, status = 0, 200
        if asked := self.headers.get("Range"):
            start, status = int(asked.removeprefix("bytes=").split("-")[0]), 206
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        cut = repo.cut_at if large and self.command == "GET" else None
        self._send(status, data[start:], headers, cut=cut, fault=repo.fault)

    def _send(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str],
        *,
        cut: int | None = None,
        fault: Callable[[], None] = lambda: None,
    ) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.wfile.flush()
            fault()
            self.close_connection = True


def _oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub, and an environment in which it is the only one, with empty caches."""
    for name in (
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "HF_TOKEN",
    ):
        monkeypatch.delenv(name, raising=False)
    # Read once, when the library was first imported.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    found = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": found}))
    server.daemon_threads = True
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", found.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("BESTIARY_CACHE", str(tmp_path / "bestiary"))
    yield found
    server.shutdown()
    server.server_close()
    thread.join()
