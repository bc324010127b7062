"""Downloads from a hub that is well, ill, or hostile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from bestiary import hub as local
from bestiary.errors import HubError

from .conftest import COMMIT, OTHER_COMMIT, Hub, Repo

WEIGHTS = bytes(range(256)) * 4096
MODEL = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "tokenizer.model": b"sp",
    "chat_template.jinja": b"{{ messages }}",
    "README.md": b"---\nlicense: apache-2.0\ntags:\n- x\n---\nhello",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"the same again",
    "pytorch_model.bin.index.json": b"{}",
    "modeling_evil.py": b"raise SystemExit",
    "training_args.bin": b"pickle",
    "original/consolidated.00.pth": b"the same again",
    ".gitattributes": b"*",
}


def test_takes_one_kind_of_weights_and_no_code(hub: Hub) -> None:
    hub.add("org/name", MODEL)
    said: list[str] = []
    path = local.pull("org/name", progress=said.append)
    assert sorted(file.name for file in path.iterdir()) == [
        "README.md",
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer.model",
    ]
    assert (path / "model.safetensors").read_bytes() == WEIGHTS
    assert hub.sent() == {file.name for file in path.iterdir()}
    assert path == local.resolve("org/name") == local.resolve(f"org/name@{COMMIT[:9]}")
    assert local.licence(path) == "apache-2.0"
    assert said == ["org/name at 0123456789ab: 6 files, 1.0 MB, of which 1.0 MB to download", "100 %"]


def test_second_pull_downloads_nothing(hub: Hub) -> None:
    hub.add("org/name", MODEL)
    path = local.pull("org/name")
    hub.asked.clear()
    assert local.pull("org/name", verify=True) == path
    assert hub.sent() == set()


def test_branch_moves_and_both_commits_stay(hub: Hub) -> None:
    repo = hub.add("org/name", MODEL)
    first = local.pull("org/name")
    repo.files = {**MODEL, "model.safetensors": WEIGHTS[::-1]}
    repo.commits = {"main": OTHER_COMMIT, "v1": COMMIT}
    second = local.pull("org/name")
    assert (first.name, second.name) == (COMMIT, OTHER_COMMIT)
    assert local.resolve("org/name") == second
    assert (second / "model.safetensors").read_bytes() == WEIGHTS[::-1]
    assert (first / "model.safetensors").read_bytes() == WEIGHTS
    assert local.resolve(f"org/name@{COMMIT}") == first


def test_revision_is_a_branch_a_tag_or_a_commit(hub: Hub) -> None:
    hub.add("org/name", MODEL, commits={"main": COMMIT, "refs/pr/1": OTHER_COMMIT})
    path = local.pull("org/name", revision="refs/pr/1")
    assert path.name == OTHER_COMMIT
    assert path == local.resolve("org/name@refs/pr/1") == local.pull(f"org/name@{OTHER_COMMIT}")
    # What was never pulled under a name is not guessed to be it.
    with pytest.raises(HubError, match=r"org/name is not here.* Did you mean 'org/name@89abcdef"):
        local.resolve("org/name")
    with pytest.raises(HubError, match=r"org/name@v2 is not here[\s\S]*bestiary pull org/name@v2"):
        local.resolve("org/name@v2")


def test_one_gguf_file_of_several(hub: Hub) -> None:
    hub.add("org/name-GGUF", {"name.Q4_0.gguf": b"four", "name.Q8_0.gguf": b"eight", "README.md": b"#"})
    with pytest.raises(
        HubError, match=r"holds 2 GGUF models; name one:\n  org/name-GGUF:name.Q4_0.gguf  0.00 GB"
    ):
        local.pull("org/name-GGUF")
    path = local.pull("org/name-GGUF:name.Q8_0.gguf")
    assert path.name == "name.Q8_0.gguf"
    assert path.read_bytes() == b"eight"
    assert hub.sent() == {"name.Q8_0.gguf", "README.md"}
    assert local.resolve("org/name-GGUF:name.Q8_0.gguf") == local.resolve("org/name-GGUF") == path
    with pytest.raises(HubError, match=r"bestiary pull org/name-GGUF:name.Q4_0.gguf"):
        local.resolve("org/name-GGUF:name.Q4_0.gguf")
    with pytest.raises(HubError, match=r"has no file other.gguf; it has:\n  org/name-GGUF:name.Q4_0.gguf"):
        local.pull("org/name-GGUF:other.gguf")


def test_a_split_gguf_is_one_model(hub: Hub) -> None:
    parts = {f"big-0000{i}-of-00002.gguf": bytes([i]) for i in (1, 2)}
    repo = hub.add("org/name", {"config.json": b"{}", **parts, "small.gguf": b"s"})
    path = local.pull("org/name:big-00001-of-00002.gguf")
    assert path.name == "big-00001-of-00002.gguf"
    assert hub.sent() == {"config.json", *parts}
    assert local.resolve("org/name") == path
    del repo.files["small.gguf"]
    repo.commits = {"main": OTHER_COMMIT}
    assert local.pull("org/name").read_bytes() == b"\1"


def test_names_that_are_patterns_mean_themselves(hub: Hub) -> None:
    hub.add("org/name", {"config.json": b"{}", "a[1].gguf": b"right", "a1.gguf": b"wrong"})
    assert local.pull("org/name:a[1].gguf").read_bytes() == b"right"
    assert hub.sent() == {"config.json", "a[1].gguf"}


def test_shards_and_their_index(hub: Hub) -> None:
    shards = {f"model-0000{i}-of-00003.safetensors": bytes([i]) * 9 for i in (1, 2, 3)}
    index = {"model.safetensors.index.json": b"{ }", "pytorch_model.bin.index.json": b"[]"}
    hub.add("org/name", {"config.json": b"{}", **shards, **index, "model.fp16.safetensors": b"half"})
    path = local.pull("org/name")
    assert hub.sent() == {"config.json", "model.safetensors.index.json", *shards}
    (path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(HubError, match=r"is not complete.\nTry: bestiary pull org/name"):
        local.resolve("org/name")
    assert [model.complete for model in local.models()] == [False]


@pytest.mark.parametrize(
    "evil", ["../evil.json", "/etc/evil.json", "a/../../evil.json", "a\\..\\evil.json", "C:evil.json"]
)
def test_hostile_file_names_are_refused(hub: Hub, tmp_path: Path, evil: str) -> None:
    hub.add("org/name", {**MODEL, evil: b"evil"})
    with pytest.raises(HubError, match=r"points outside of it: refused"):
        local.pull("org/name")
    assert hub.sent() == set()
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        (
            (401, "RepoNotFound"),
            "shows no model org/name: there is none, or it is private.\nTry: .* set HF_TOKEN",
        ),
        ((404, ""), "shows no model org/name"),
        (
            (403, "GatedRepo"),
            "open only to those who accepted its terms.\nTry: accept them at .*/org/name, then set HF_TOKEN",
        ),
        ((403, ""), "open only to those"),
        ((404, "RevisionNotFound"), "has no branch, tag or commit 'v9'.\nTry: bestiary pull org/name"),
        ((500, ""), "answered 500 for org/name.\nTry: in a while, bestiary pull org/name@v9, which keeps"),
        ((503, ""), "answered 503"),
        ((429, ""), "answered 429"),
    ],
)
def test_refusals_become_one_error(hub: Hub, refusal: tuple[int, str], message: str) -> None:
    hub.add("org/name", MODEL, refusal=refusal)
    with pytest.raises(HubError, match=message):
        local.pull("org/name@v9")
    assert local.models() == []


def test_token_opens_a_gated_repository(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/name", MODEL, token="hf_right")
    with pytest.raises(HubError, match=r"HF_TOKEN"):
        local.pull("org/name")
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert local.pull("org/name").name == COMMIT


def test_no_hub_at_all(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        HubError, match=r"from http://127.0.0.1:9 failed: .*refused.*\nTry: check the network"
    ):
        local.pull("org/name")


def test_something_that_is_not_a_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/name", MODEL, commits={"main": "not a commit"})
    with pytest.raises(HubError, match=r"gave no commit for org/name.\nTry: check HF_ENDPOINT"):
        local.pull("org/name")


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_variables_forbid_every_request(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    hub.add("org/name", MODEL)
    monkeypatch.setenv(variable, "1")
    with pytest.raises(HubError, match=rf"{variable}.* is set"):
        local.pull("org/name")
    with pytest.raises(HubError, match=rf"{variable}.* is set"):
        local.pull("smollm2")
    assert hub.asked == []
    monkeypatch.delenv(variable)
    path = local.pull("org/name")
    hub.asked.clear()
    monkeypatch.setenv(variable, "1")
    assert local.pull("org/name") == path
    assert hub.asked == []


def test_full_disk(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/name", MODEL)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("bestiary.hub.download.shutil.disk_usage", lambda path: usage)
    with pytest.raises(HubError, match=r"0.00 GB left.\nTry: make room, or set HF_HUB_CACHE"):
        local.pull("org/name")
    assert hub.sent() == set()


def test_disk_fills_up_on_the_way(hub: Hub, tmp_path: Path) -> None:
    hub.add("org/name", MODEL)
    # A limit on the size of a file makes a write fail in the middle, as a full disk does, with another
    # number.
    code = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
    code += "from bestiary import hub; hub.pull('org/name')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=_environment(), check=False
    )
    assert "HubError: downloading org/name" in done.stderr
    assert "File too large" in done.stderr
    with pytest.raises(HubError, match=r"is not here"):
        local.resolve("org/name")
    assert (local.pull("org/name") / "model.safetensors").read_bytes() == WEIGHTS


def test_dropped_connection_is_resumed(hub: Hub) -> None:
    # The library counts in pieces of 10 MiB.
    piece = 10 << 20
    hub.add("org/name", {**MODEL, "model.safetensors": bytes(22 << 20)}, cut_at=piece + 1)
    path = local.pull("org/name", verify=True)
    assert (path / "model.safetensors").stat().st_size == 22 << 20
    asked = [
        asked for method, where, asked in hub.asked if method == "GET" and where.endswith(".safetensors")
    ]
    assert asked == [None, f"bytes={piece}-", f"bytes={2 * piece}-"]


def test_failed_download_is_invisible_and_keeps_whole_files(hub: Hub, tmp_path: Path) -> None:
    repo = hub.add("org/name", MODEL, cut_at=300_000)

    def fail() -> None:
        repo.refusal = (503, "")

    repo.fault = fail
    with pytest.raises(
        HubError, match=r"answered 503 .*\nTry: in a while, bestiary pull org/name, which keeps"
    ):
        local.pull("org/name")
    assert local.models() == []
    with pytest.raises(HubError, match=r"org/name is not here"):
        local.resolve("org/name")
    before = {file.name for file in tmp_path.rglob("snapshots/*/*")}
    repo.refusal = repo.cut_at = None
    hub.asked.clear()
    path = local.pull("org/name", verify=True)
    assert (path / "model.safetensors").read_bytes() == WEIGHTS
    assert "model.safetensors" in hub.sent()
    assert not hub.sent() & before


def test_killed_download_is_invisible_and_swept(hub: Hub, tmp_path: Path) -> None:
    repo = hub.add("org/name", MODEL, cut_at=300_000)
    reached, over = _stalled(repo)
    code = "from bestiary import hub; hub.pull('org/name')"
    child = subprocess.Popen([sys.executable, "-c", code], env=_environment(), stderr=subprocess.DEVNULL)
    assert reached.wait(30)
    child.send_signal(signal.SIGKILL)
    child.wait()
    over.set()
    with pytest.raises(HubError, match=r"org/name is not here"):
        local.resolve("org/name")
    orphans = list(tmp_path.rglob("*.incomplete"))
    assert orphans
    for orphan in orphans:
        os.utime(orphan, (0, 0))
    repo.cut_at = None
    assert (local.pull("org/name", verify=True) / "model.safetensors").read_bytes() == WEIGHTS
    assert not list(tmp_path.rglob("*.incomplete"))


def test_a_partial_file_that_is_being_written_is_not_swept(hub: Hub) -> None:
    repo = hub.add("org/name", MODEL)
    path = local.pull("org/name")
    blobs, locks = path.parents[1] / "blobs", path.parents[2] / ".locks" / "models--org--name"
    for name in ("live", "dead", "fresh"):
        (blobs / f"{name}.12345678.incomplete").touch()
    for name in ("live", "dead"):
        os.utime(blobs / f"{name}.12345678.incomplete", (0, 0))
    repo.commits = {"main": OTHER_COMMIT}
    with FileLock(locks / "live.lock"):
        local.pull("org/name")
    assert {found.name.split(".")[0] for found in blobs.glob("*.incomplete")} == {"live", "fresh"}


def test_interrupt_ends_a_download_at_once(hub: Hub) -> None:
    """The server sends nothing more until the program has ended."""
    repo = hub.add("org/name", MODEL, cut_at=300_000)
    reached, over = _stalled(repo)
    command = [sys.executable, "-m", "bestiary", "pull", "org/name"]
    child = subprocess.Popen(command, env=_environment(), stderr=subprocess.PIPE, text=True)
    assert reached.wait(30)
    child.send_signal(signal.SIGINT)
    _, told = child.communicate()
    over.set()
    assert child.returncode == 130
    assert told.endswith("stopped; files that arrived whole are kept\n")
    assert "Traceback" not in told


def test_damaged_blob_is_found_by_its_hash(hub: Hub) -> None:
    hub.add("org/name", MODEL)
    blob = (local.pull("org/name") / "model.safetensors").resolve()
    blob.write_bytes(b"\1" + WEIGHTS[1:])
    assert local.pull("org/name").name == COMMIT
    with pytest.raises(
        HubError, match=rf"is damaged: its SHA-256 is [0-9a-f]*, not {blob.name}.\nTry: rm {blob}"
    ):
        local.pull("org/name", verify=True)
    blob.unlink()
    assert local.pull("org/name", verify=True).name == COMMIT


def test_a_misspelt_roster_name_is_not_asked_of_the_hub(hub: Hub) -> None:
    with pytest.raises(HubError, match=r"no model is called 'smolm2'. Did you mean 'smollm2'?"):
        local.pull("smolm2")
    with pytest.raises(HubError, match=r"is a path; pull takes a name of the hub"):
        local.pull("./model.gguf")
    assert hub.asked == []


def test_nothing_opens_a_socket_after_a_pull(hub: Hub) -> None:
    hub.add("org/name", MODEL)
    local.pull("org/name")
    hub.asked.clear()
    code = """
import sys
def refuse(event, args):
    if event.startswith("socket."):
        raise SystemExit(f"opened a socket: {event} {args}")
sys.addaudithook(refuse)
from bestiary import hub
hub.resolve("org/name"); hub.models(); hub.licence(hub.resolve("org/name"))
try:
    hub.resolve("org/unknown")
except Exception as error:
    assert type(error).__name__ == "HubError", error
assert "huggingface_hub" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], env=_environment(), check=True)
    assert hub.asked == []


def _stalled(repo: Repo) -> tuple[threading.Event, threading.Event]:
    """Let the server stop at the repository's cut; return the events "it is there" and "go on"."""
    reached, over = threading.Event(), threading.Event()

    def stall() -> None:
        reached.set()
        over.wait(60)

    repo.fault = stall
    return reached, over


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(local.__file__).parents[2])}
