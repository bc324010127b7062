"""Names out of files stay in their folder, and only regular files are opened."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bestiary.errors import CheckpointError, ConfigError
from bestiary.files import open_checkpoint
from bestiary.files.paths import read_json, resolve
from bestiary.files.safetensors import write
from tests.unit.files.craft import refused

INDEX = "model.safetensors.index.json"
OUTSIDE = "outside.safetensors"


def _spellings(path: str) -> set[str]:
    """One path in the ways that a parser somewhere reads as that path."""
    slashes = ("/", "\\", "//", "%2f", "%5C", "\u2215", "\uff0f", "\uff3c", "\u2044", "/./")
    dots = (".", "%2e", "\u2024", "\uff0e", "\u3002", "\uff61", "%252e", ".\u200b")
    return {path.replace("/", slash).replace(".", dot) for slash in slashes for dot in dots}


def hostile_names(outside: Path) -> list[str]:
    escapes = {f"../{OUTSIDE}", f"a/../../{OUTSIDE}", f"./../{OUTSIDE}", f"../model/../{OUTSIDE}"}
    plain = f"../{OUTSIDE.removesuffix('.safetensors')}"
    names = {
        *escapes,
        *(f"{spelt}.safetensors" for path in (plain, "a/../../outside") for spelt in _spellings(path)),
        *(f"{before}{outside}" for before in ("", "/", "//", "///", "file:", "file://", "\\\\?\\")),
        *("x" * 256, "x" * 300, "x/" * 200 + "y", "é" * 256, "\U0001f600" * 300),
        *("", " ", "x ", " x", "x. ", "x/ /y"),
        *(f"../{OUTSIDE}\0", "x\0.safetensors", "x\r\ny", "x\ny", "x\ry", "x\ty"),
        *("x\x7f", "x\x1b[2J", "\ufeffx", "x\u202ey", "x\u200by", "x\u2028y", "\ud800", "x\udcffy"),
        *("\u2025/x", "\u2026", "\u2024\u2024/x", "\uff0e\uff0e/x", "\uff0e\uff0e\uff0fx"),
        *("\u3002\u3002/x", "x\uff3cy", "\ufe52\ufe52/x", "x\uff1ay", "\uff5ex", "x\u2215y\uff05"),
        *r"""
        /etc/passwd //etc/passwd /proc/self/environ /dev/zero /dev/stdin /proc/self/fd/0
        / // ./ ../ . .. ... ....
        C:\Windows\x C:/x c:x \\server\share\x //server/share/x \\?\C:\x \\.\PhysicalDrive0 x:stream
        x.safetensors::$DATA ~ ~/x ~root/x x. x/../y x/./y x//y x/ /x ./x x/.. .../x ..\x x\..\y
        CON con NUL.safetensors aux.txt COM1 com9.bin LPT1 x/PRN PRN/x nul
        %2e%2e/x ..%2fx ..%5cx %2e%2e%2fx %252e%252e%252fx %00 x%00.safetensors %c0%ae%c0%ae/x ..%c0%af
        http://example.org/x https://example.org/x hf://org/model s3://x data:,x x|y:z
        """.split(),
    }
    return sorted(names)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A sharded model in a folder, and a file outside of it."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a").mkdir()
    write(folder / "one.safetensors", {"w": torch.ones(2)})
    write(folder / "a" / "two.safetensors", {"w": torch.ones(2)})
    write(tmp_path / OUTSIDE, {"w": torch.full((2,), 666.0)})
    return folder


def point_at(folder: Path, name: str) -> Path:
    (folder / INDEX).write_text(json.dumps({"weight_map": {"w": name}}))
    return folder


_opened: list[str] | None = None


def _watch(event: str, args: tuple[object, ...]) -> None:
    if (
        event == "open" and _opened is not None and not isinstance(args[0], int)
    ):  # a descriptor was opened before
        _opened.append(str(args[0]))


sys.addaudithook(_watch)


@contextmanager
def opened() -> Iterator[list[str]]:
    """The names of the files that are opened meanwhile, by anything in this process."""
    global _opened  # noqa: PLW0603 (an audit hook cannot be taken out again)
    _opened = []
    try:
        yield _opened
    finally:
        _opened = None


@pytest.mark.optimised
def test_hostile_names_are_refused_and_nothing_outside_is_opened(model: Path) -> None:
    names = hostile_names(model.parent / OUTSIDE)
    if len(names) < 200:
        pytest.fail(f"only {len(names)} names")
    for name in names:
        with pytest.raises(CheckpointError):
            resolve(model, name)  # as text: whatever lies on the disk
        point_at(model, name)
        with opened() as files, pytest.raises(CheckpointError) as raised:
            open_checkpoint(model)
        if [file for file in files if Path(file).name != INDEX]:
            pytest.fail(f"{name!r}: opened {files}")
        if (
            type(raised.value) is not CheckpointError
            or not raised.value.remedy
            or "\x1b" in str(raised.value)
        ):
            pytest.fail(f"{name!r}: {raised.value!r}")


@pytest.mark.parametrize(
    "name",
    [
        "one.safetensors",
        "a/two.safetensors",
        "model-00001-of-00002.safetensors",
        "模型.safetensors",
        "a b (1).bin",
        "pytorch_model.fp16-00001.bin",
        ".hidden",
        "v1.0_x+y=z,@#!.bin",
        "Q4_K_M.gguf",
        "x" * 255,
    ],
)
def test_good_names_are_kept(model: Path, name: str) -> None:
    assert resolve(model, name) == model / name


@given(st.text(max_size=40))
def test_no_name_leads_out(name: str) -> None:
    folder = Path("/nonexistent/folder")
    try:
        found = resolve(folder, name)
    except CheckpointError:
        return
    assert os.path.realpath(found).startswith("/nonexistent/folder/")


# Links.


def test_a_link_out_of_the_folder_is_refused(model: Path) -> None:
    (model / "link.safetensors").symlink_to(model.parent / OUTSIDE)
    refused_link = refused(point_at(model, "link.safetensors"), saying="link that leads out")
    assert "Copy the file" in str(refused_link)


def test_a_folder_that_is_a_link_out_is_refused(model: Path) -> None:
    (model / "sub").symlink_to(model.parent)
    refused(point_at(model, f"sub/{OUTSIDE}"), saying="link that leads out")


def test_a_single_file_that_is_a_link_out_is_refused(model: Path) -> None:
    for name in ("model.safetensors", "other.safetensors", INDEX):
        folder = model.parent / name.replace(".", "-")
        folder.mkdir()
        (folder / name).symlink_to(model.parent / OUTSIDE)
        refused(folder, saying="link that leads out")


def test_a_link_inside_the_folder_is_followed(model: Path) -> None:
    (model / "link.safetensors").symlink_to("a/two.safetensors")
    assert open_checkpoint(point_at(model, "link.safetensors")).entries["w"].read().tolist() == [1, 1]


def test_what_the_user_names_may_be_a_link(model: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(model)
    (tmp_path / "linked.safetensors").symlink_to(model / "one.safetensors")
    assert open_checkpoint(point_at(tmp_path / "linked", "one.safetensors")).entries
    assert open_checkpoint(tmp_path / "linked.safetensors").entries


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A model as the Hugging Face cache holds it."""
    repo = tmp_path / "hub" / "models--org--name"
    folder = repo / "snapshots" / "0123abcd"
    (repo / "blobs").mkdir(parents=True)
    folder.mkdir(parents=True)
    write(repo / "blobs" / "aaaa", {"w": torch.ones(2)})
    (repo / "blobs" / "bbbb").write_text(json.dumps({"weight_map": {"w": "one.safetensors"}}))
    (folder / "one.safetensors").symlink_to("../../blobs/aaaa")
    (folder / INDEX).symlink_to("../../blobs/bbbb")
    return folder


def test_the_links_of_the_hub_cache_are_followed(snapshot: Path) -> None:
    assert open_checkpoint(snapshot).entries["w"].read().tolist() == [1, 1]
    assert read_json(snapshot / INDEX)["weight_map"]
    assert open_checkpoint(snapshot / "one.safetensors").entries


@pytest.mark.parametrize(
    "target", ["../../../models--org--other/blobs/x", "../../../../outside", "../../refs/main"]
)
def test_links_of_a_cache_stay_in_their_own_blobs(snapshot: Path, target: str) -> None:
    elsewhere = snapshot / target
    elsewhere.parent.mkdir(parents=True, exist_ok=True)
    write(snapshot.parents[1] / "blobs" / "aaaa", {"w": torch.ones(2)})
    elsewhere.write_bytes((snapshot.parents[1] / "blobs" / "aaaa").read_bytes())
    (snapshot / "one.safetensors").unlink()
    (snapshot / "one.safetensors").symlink_to(target)
    refused(snapshot, saying="link that leads out")


def test_a_folder_named_as_a_snapshot_of_no_model_is_no_cache(tmp_path: Path) -> None:
    folder = tmp_path / "other" / "snapshots" / "0123abcd"
    folder.mkdir(parents=True)
    (tmp_path / "other" / "blobs").mkdir()
    write(tmp_path / "other" / "blobs" / "aaaa", {"w": torch.ones(2)})
    (folder / "model.safetensors").symlink_to("../../blobs/aaaa")
    refused(folder, saying="link that leads out")


def test_blobs_that_are_a_link_elsewhere_are_no_cache(snapshot: Path, tmp_path: Path) -> None:
    blobs = snapshot.parents[1] / "blobs"
    blobs.rename(tmp_path / "elsewhere")
    blobs.symlink_to(tmp_path / "elsewhere")
    refused(snapshot, saying="link that leads out")


# Other than regular files.


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound, chdir(path.parent):
        bound.bind(path.name)  # an address holds 107 bytes, which a path below a deep folder may exceed


def _folder(path: Path) -> None:
    path.mkdir()


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _dangling(path: Path) -> None:
    path.symlink_to("nothing")


def _unreadable_empty(path: Path) -> None:
    path.touch()


@pytest.mark.optimised
@pytest.mark.parametrize("make", [_fifo, _socket, _folder, _loop, _dangling, _unreadable_empty])
@pytest.mark.parametrize("role", ["shard", "single", "index", "named"])
def test_special_files_are_refused_at_once(model: Path, make: Callable[[Path], None], role: str) -> None:
    name = {"shard": "s.safetensors", "index": INDEX}.get(role, "model.safetensors")
    folder = model
    if role == "shard":
        point_at(model, name)
    elif make is _folder and role == "index":
        return  # a folder with the index's name and no other weights is covered by "single"
    else:
        folder = model.parent / "only"
        folder.mkdir()
    make(folder / name)
    if not (role == "named" and make is _folder):
        refused(folder / name if role == "named" else folder)


@pytest.mark.optimised
@pytest.mark.parametrize(
    "path",
    [
        "/dev/zero",
        "/dev/null",
        "/dev/random",
        "/dev/tty",
        "/proc/self/mem",
        "/proc/self/maps",
        "/proc/self/environ",
        "/proc/version",
        "/proc/kcore",
        "/sys/kernel/mm/transparent_hugepage/enabled",
        "/dev/stdin",
        "/proc/self/fd/0",
    ],
)
def test_the_kernels_files_are_refused(path: str, tmp_path: Path) -> None:
    refused(Path(path))
    (tmp_path / "x.gguf").symlink_to(path)
    refused(tmp_path / "x.gguf")
    with pytest.raises(ConfigError):
        read_json(Path(path))


@pytest.mark.parametrize("path", ["", "nothing", "no/such/thing", "a\0b", "a\ud800", "x" * 5000, "/", "/etc"])
def test_paths_that_lead_nowhere_are_one_error(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError):
        open_checkpoint(path)
    with pytest.raises(ConfigError):
        read_json(Path(path))


def test_a_config_that_is_a_link_out_or_a_pipe_is_refused(model: Path) -> None:
    (model / "config.json").symlink_to(model.parent / OUTSIDE)
    with pytest.raises(ConfigError, match="leads out"):
        read_json(model / "config.json")
    os.mkfifo(model / "generation_config.json")
    with pytest.raises(ConfigError, match="not a regular file"):
        read_json(model / "generation_config.json")
