"""Names to paths on a disk that is laid out by hand: what is found, and what is said of what is not."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest
import torch
from safetensors.torch import save_file

from bestiary import hub, roster
from bestiary.errors import HubError
from bestiary.files import open_checkpoint
from bestiary.hub import cache
from bestiary.hub.names import Name, parse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with nothing in it."""
    unset = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "BESTIARY_CACHE"]
    for name in unset:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _cached(root: Path, repo: str, files: dict[str, bytes], commit: str = COMMIT, ref: str = "main") -> Path:
    """Lay a repository out as the Hugging Face cache does: blobs, links to them, a ref."""
    folder = root / f"models--{repo.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    for number, (name, data) in enumerate(files.items()):
        blob = folder / "blobs" / f"{commit[:4]}{number}"
        link = snapshot / name
        for path in (blob, link):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / ref).write_text(commit)
    return snapshot


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        (None, "", ".cache/huggingface/hub"),
        ("HF_HUB_CACHE", "~/a", "a"),
        ("HF_HOME", "$HOME/b", "b/hub"),
        ("XDG_CACHE_HOME", "~/c", "c/huggingface/hub"),
    ],
)
def test_the_hub_cache_is_where_other_tools_have_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None, value: str, expected: str
) -> None:
    if variable:
        monkeypatch.setenv(variable, value)
    assert cache.hub_cache() == home / expected
    path = _cached(cache.hub_cache(), "org/name", {"config.json": b"{}", "model.safetensors": b"w"})
    assert hub.resolve("org/name") == path


def test_paths(home: Path) -> None:
    (home / "mine").mkdir()
    (home / "mine" / "model.safetensors").touch()
    (home / "one").mkdir()
    (home / "one" / "x.gguf").touch()
    assert hub.resolve("mine") == Path("mine")
    assert hub.resolve("~/mine") == home / "mine"
    assert hub.resolve(str(home / "one" / "x.gguf")) == home / "one" / "x.gguf"
    # The GGUF file in a folder is the model: it holds its own config and tokenizer.
    assert hub.resolve("./one") == Path("one/x.gguf")


def test_a_path_comes_before_the_hub_and_the_roster_before_both(home: Path) -> None:
    for name in ("smollm2", "org/name"):
        (home / name).mkdir(parents=True)
        (home / name / "model.safetensors").touch()
    _cached(cache.hub_cache(), "org/name", {"model.safetensors": b"w"})
    assert hub.resolve("org/name") == Path("org/name")
    assert hub.resolve("./smollm2") == Path("smollm2")
    with pytest.raises(
        HubError, match=r"smollm2 \(SmolLM2-135M-Instruct\) is not in .*\nTry: bestiary pull smollm2"
    ):
        hub.resolve("smollm2")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("./lama", r"./lama: no such file or folder. Did you mean 'llama'\?"),
        ("/nowhere/at/all.gguf", "/nowhere/at/all.gguf: no such file or folder$"),
        ("llma/model.gguf", "no such file or folder"),
        ("empty", "empty holds no weights: no file ends in .safetensors, .bin, .gguf"),
        ("two", "two holds 2 GGUF models; name one:\n  two/a.gguf\n  two/b.gguf"),
        ("part", "part lacks a part of its weights: model-00002-of-00002.safetensors"),
        ("fifo", "fifo is neither a regular file nor a folder"),
        ("smolm2", r"smolm2 is not here \(.*/hub\). Did you mean 'smollm2'\?\nTry: bestiary list"),
        ("orgg/naem", r"Did you mean 'org/name'\?"),
        ("name", r"Did you mean 'org/name'\?"),
        ("org/name@v2", r"Did you mean 'org/name'\?\nTry: bestiary pull org/name@v2"),
        ("org/gone", "its download in .* is not complete.\nTry: bestiary pull org/gone"),
        ("org/name:x.gguf", "org/name:x.gguf is not here\nTry: bestiary pull org/name:x.gguf"),
    ],
)
def test_what_is_not_here(home: Path, asked: str, message: str) -> None:
    for path in ("llama/model.gguf", "two/a.gguf", "two/b.gguf", "part/model-00001-of-00002.safetensors"):
        (home / path).parent.mkdir(exist_ok=True)
        (home / path).touch()
    (home / "empty").mkdir()
    os.mkfifo(home / "fifo")
    _cached(cache.hub_cache(), "org/name", {"config.json": b"{}", "model.safetensors": b"w"})
    gone = _cached(cache.hub_cache(), "org/gone", {"config.json": b"{}", "model.safetensors": b"w"})
    (gone / "model.safetensors").resolve().unlink()
    with pytest.raises(HubError, match=message):
        hub.resolve(asked)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        "a/b/c",
        "org/name@../../x",
        "org/name:../x.gguf",
        "org/name:/etc/x.gguf",
        "org/name:a\\b.gguf",
        "org/name:x.py",
        "or--g/name",
        "org/na..me",
        "org/name@",
        "org/\0name",
        "-o/name",
        "https://huggingface.co/org/name",
        "x" * 10_000 + "/ ",
    ],
)
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(HubError) as error:
        parse(name)
    assert len(str(error.value)) < 500
    assert "\0" not in str(error.value)


def test_names_that_can() -> None:
    assert parse("gpt2") == Name("gpt2")
    assert parse("org/na.me-1_x@refs/pr/3:sub/q4.gguf") == Name("org/na.me-1_x", "refs/pr/3", "sub/q4.gguf")
    assert str(parse("org/name@v1:a.gguf")) == "org/name@v1:a.gguf"


def test_blobs_that_all_models_share(home: Path) -> None:
    """The layout of huggingface_hub 2: a model's blob is a link to the one of that content for all models."""
    path = _cached(cache.hub_cache(), "org/name", {"config.json": b"{}", "model.safetensors": b"w"})
    save_file({"x": torch.ones(3)}, home / "weights")
    shared = cache.hub_cache() / "blobs" / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    (home / "weights").rename(shared)
    blob = path.parents[1] / "blobs" / "etag"
    blob.symlink_to(os.path.relpath(shared, blob.parent))
    (path / "model.safetensors").unlink()
    (path / "model.safetensors").symlink_to(os.path.relpath(blob, path))
    assert hub.resolve("org/name") == path
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.entries["x"].read().tolist() == [1.0, 1.0, 1.0]


def test_links_out_of_the_cache_are_not_followed(home: Path) -> None:
    secret = home / "secret.json"
    secret.touch()
    path = _cached(cache.hub_cache(), "org/name", {"model.safetensors": b"w"})
    (path / "config.json").symlink_to(secret)
    with pytest.raises(HubError, match=r"config.json: a link that leads out of the cache, to .*secret.json"):
        hub.resolve("org/name")


@pytest.mark.parametrize("commit", ["../../../..", "0" * 40, "", "\xff"])
def test_a_ref_is_only_the_name_of_a_snapshot(home: Path, commit: str) -> None:
    path = _cached(cache.hub_cache(), "org/name", {"model.safetensors": b"w"})
    (path.parents[1] / "refs" / "main").write_text(commit)
    with pytest.raises(HubError, match=r"is not here"):
        hub.resolve("org/name")


def test_models_lists_what_resolve_takes(home: Path) -> None:
    root = cache.hub_cache()
    _cached(root, "org/name", {"config.json": b"{}", "model.safetensors": bytes(10)})
    _cached(root, "org/name", {"pytorch_model.bin": bytes(20)}, commit="f" * 40, ref="old")
    _cached(root, "org/many", {"a.gguf": bytes(1), "b.gguf": bytes(2)})
    _cached(root, "gpt2", {"model.safetensors": bytes(3)})
    _cached(root, "org/part", {"model-00001-of-00002.safetensors": b"w"})
    _cached(root, "org/config-only", {"config.json": b"{}"})
    own = cache.own_cache()
    own.mkdir(parents=True)
    (own / "mine.gguf").write_bytes(bytes(4))
    found = {model.name: (model.kind, model.nbytes, model.complete) for model in hub.models()}
    assert found == {
        str(own / "mine.gguf"): ("gguf", 4, True),
        "gpt2": ("safetensors", 3, True),
        "org/many:a.gguf": ("gguf", 1, True),
        "org/many:b.gguf": ("gguf", 2, True),
        "org/name": ("safetensors", 12, True),
        f"org/name@{'f' * 40}": ("bin", 20, True),
        "org/part": ("safetensors", 1, False),
    }
    for model in hub.models():
        if model.complete:
            assert hub.resolve(model.name) == model.path


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ('---\nlicense: other\nlicense_name: "llama2"\nlicense_link: x\n---\n', "llama2"),
        ("---\ntags:\n- license: no\n---\nlicense: no", None),
        ("license: no", None),
        ("---\nlicense: no", None),
    ],
)
def test_licence_of_a_model_card(home: Path, card: str, expected: str | None) -> None:
    (home / "README.md").write_text(card)
    assert hub.licence(home) == expected
    (home / "LICENSE").touch()
    assert hub.licence(home) == (expected or f"see {home / 'LICENSE'}")


def test_the_roster_holds_the_default_model() -> None:
    entry = roster.entries()[roster.DEFAULT]
    assert roster.find("SmolLM2") is entry
    assert roster.find("none") is None
    assert entry.wheel is not None
    assert entry.wheel.name.endswith(".gguf")


WHEELS = [entry.wheel for entry in roster.entries().values() if entry.wheel is not None]


@pytest.mark.parametrize("wheel", WHEELS, ids=lambda wheel: wheel.name)
def test_what_the_roster_says_of_a_wheel(wheel: roster.Wheel) -> None:
    assert "==" in wheel.requirement
    assert {len(wheel.sha256), *(len(file.sha256) for file in wheel.files)} == {64}
    # One rename makes all of it appear, and nothing outside of our cache is written.
    assert {PurePosixPath(file.path).parts[0] for file in wheel.files} == {wheel.name}
    assert not any(".." in file.path or file.path.startswith("/") for file in wheel.files)
