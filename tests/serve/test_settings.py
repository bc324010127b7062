"""What a server refuses to start with, and how it reads its command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bestiary import cli
from bestiary.errors import RequestError
from bestiary.serve.settings import Opening, Settings

KEY = "0123456789abcdef"


def settings(**fields: Any) -> Settings:
    streams = fields.pop("streams", 16)
    return Settings(opening=Opening(model="nothing", streams=streams), **fields)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_an_address_that_others_reach_needs_a_key(host: str) -> None:
    with pytest.raises(RequestError, match="no key"):
        settings(host=host)
    assert not settings(host=host, keys=(KEY,)).loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_a_loopback_address_needs_none(host: str) -> None:
    assert settings(host=host).loopback


@pytest.mark.parametrize(
    "fields",
    [
        {"keys": ("short",)},
        {"keys": ("with space at end ",)},
        {"keys": ("schlüssel-der-nicht-geht",)},
        {"origins": ("*",)},
        {"origins": ("example.org",)},
        {"origins": ("https://example.org/path",)},
        {"queue": -1},
        {"streams": 0},
        {"grace": -1.0},
        {"port": 70000},
    ],
)
def test_values_out_of_their_bounds_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        settings(**fields)


def test_keys_are_not_shown() -> None:
    assert KEY not in repr(settings(keys=(KEY,)))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "there is no key"),
        (["--adapter", "x"], "NAME=PATH"),
        (["--allow-adapters", "nowhere"], "no such folder"),
        (["--chunk", "1"], "from 16"),
        (["--cache-tokens", "many"], "should be a number"),
        (["--allow-origin", "*"], "should be like"),
    ],
)
def test_the_command_says_what_is_wrong(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["serve", str(tmp_path), *words]) == cli.USAGE
    assert said in capsys.readouterr().err


def test_a_file_of_keys_without_a_key_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# none yet\n\n")
    assert cli.main(["serve", str(tmp_path), "--api-key-file", str(file)]) == cli.USAGE
    assert "holds no key" in capsys.readouterr().err
