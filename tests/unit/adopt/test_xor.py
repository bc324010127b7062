"""BELLE's encrypted files, written here byte by byte as its decrypt.py reads them."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest

from bestiary import cli
from bestiary.adopt import xor
from bestiary.errors import CheckpointError, RequestError

PIECE = 10 << 20
FILES = {"config.json": b'{"model_type": "llama"}', "tokenizer.model": b"\0\1\2" * 50, "empty.txt": b""}


def encrypted(plain: bytes, key: bytes) -> bytes:
    out = bytearray(hashlib.sha256(plain).digest())
    pieces = [key[at : at + PIECE] for at in range(0, len(key), PIECE)]
    for number, at in enumerate(range(0, len(plain), PIECE)):
        part, other = plain[at : at + PIECE], pieces[number % len(pieces)]
        other = (other * (len(part) // len(other) + 1))[: len(part)]
        out += (int.from_bytes(part, "big") ^ int.from_bytes(other, "big")).to_bytes(len(part), "big")
    return bytes(out)


def write(folder: Path, files: dict[str, bytes], key: bytes) -> tuple[Path, Path]:
    """Write a repository and a key; return both."""
    published = folder / "BELLE-LLaMA-7B-2M-enc"
    published.mkdir()
    for name, plain in files.items():
        (published / f"{name}.{hashlib.sha256(plain).hexdigest()}.enc").write_bytes(encrypted(plain, key))
    (published / "README.md").write_text("how to decrypt")
    (folder / "consolidated.00.pth").write_bytes(key)
    return published, folder / "consolidated.00.pth"


def random_bytes(count: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(count)


@pytest.mark.parametrize("length", [7, PIECE, PIECE + 11, 2 * PIECE])
def test_every_file_comes_back(tmp_path: Path, length: int) -> None:
    """The key is shorter than a piece, one, one and a bit, two; the file three pieces and a bit."""
    files = FILES | {"pytorch_model.bin": random_bytes(3 * PIECE + 5, 1)}
    published, key = write(tmp_path, files, random_bytes(length, 2))
    seen: list[tuple[int, int]] = []
    assert sorted(xor.names(published)) == sorted(files)
    made = xor.decrypt(published, key, tmp_path / "plain", progress=lambda *at: seen.append(at))
    assert {file.name: file.read_bytes() for file in made} == files
    assert {file.name for file in (tmp_path / "plain").iterdir()} == files.keys()
    assert seen[-1][0] == seen[-1][1]


def test_another_key_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    published, key = write(tmp_path, FILES, random_bytes(99, 1))
    key.write_bytes(random_bytes(99, 2))
    with pytest.raises(
        CheckpointError, match=r"does not give config\.json with this key.*as Meta released it"
    ):
        xor.decrypt(published, key, tmp_path / "plain")
    key.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"consolidated\.00\.pth: is empty"):
        xor.decrypt(published, key, tmp_path / "plain")
    with pytest.raises(CheckpointError, match="cannot be opened"):
        xor.decrypt(published, tmp_path / "none", tmp_path / "plain")
    assert {each.name for each in tmp_path.iterdir()} == {published.name, key.name}


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    published, key = write(tmp_path, {"config.json": FILES["config.json"]}, random_bytes(99, 1))
    (file,) = published.glob("*.enc")
    whole = file.read_bytes()
    for content in (whole[:-1], whole + b"x", whole[:20], b""):
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match="SHA-256"):
            xor.decrypt(published, key, tmp_path / "plain")
    file.write_bytes(whole)
    (published / f"config.json.{'0' * 64}.enc").write_bytes(whole)
    with pytest.raises(CheckpointError, match="holds two versions of a file"):
        xor.decrypt(published, key, tmp_path / "plain")
    file.unlink()
    with pytest.raises(CheckpointError, match="another SHA-256 than it is named for"):
        xor.decrypt(published, key, tmp_path / "plain")


def test_places_that_hold_something_are_refused(tmp_path: Path) -> None:
    published, key = write(tmp_path, FILES, b"k")
    with pytest.raises(CheckpointError, match=r"holds no file named NAME\.SHA256\.enc"):
        xor.decrypt(tmp_path, key, tmp_path / "plain")
    with pytest.raises(RequestError, match="is not empty"):
        xor.decrypt(published, key, published)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published, key = write(tmp_path, FILES, b"key")
    command = ["adopt", str(published), "--how", "xor", "--to", str(tmp_path / "plain")]
    assert cli.main(command) != 0
    assert "--how xor takes the consolidated.00.pth" in capsys.readouterr().err
    assert cli.main(["adopt", str(published), "--dry-run"]) != 0
    assert "try: --how xor --base" in capsys.readouterr().err
    assert cli.main([*command, "--base", str(tmp_path), "--dry-run"]) == 0
    assert "config.json" in capsys.readouterr().err
    assert not (tmp_path / "plain").exists()
    assert cli.main([*command, "--base", str(key), "--json"]) == 0
    assert sorted(json.loads(capsys.readouterr().out)["files"]) == sorted(FILES)
    assert (tmp_path / "plain" / "config.json").read_bytes() == FILES["config.json"]
