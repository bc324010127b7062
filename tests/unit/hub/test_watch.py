"""How far a download is, as the disk shows it."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import pytest

from bestiary.hub import watch


def _wait_for(lines: list[str], count: int) -> None:
    over = time.monotonic() + 30
    while len(lines) < count:
        assert time.monotonic() < over, lines
        time.sleep(0.005)


def test_a_line_for_each_tenth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_PERIOD", 0.001)
    (tmp_path / "before").write_bytes(bytes(5000))
    lines: list[str] = []
    with watch.watched(tmp_path, 1000, lines.append):
        (tmp_path / "x.incomplete").write_bytes(bytes(319))
        _wait_for(lines, 1)
        (tmp_path / "x.incomplete").rename(tmp_path / "x")
        (tmp_path / "y").write_bytes(bytes(300))
        _wait_for(lines, 2)
    assert lines == ["30 %", "60 %", "100 %"]


def test_nothing_to_show(tmp_path: Path) -> None:
    lines: list[str] = []
    with watch.watched(tmp_path / "none", 0, lines.append):
        pass
    with watch.watched(tmp_path / "none", 10, None):
        pass
    assert lines == []


def test_a_failed_download_is_not_shown_as_done(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(ValueError, match="lost"), watch.watched(tmp_path, 10, lines.append):
        raise ValueError("lost")
    assert lines == []


def test_a_bar_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with watch.watched(tmp_path, 2_000_000, print):
        pass
    assert "2.0/2.0 MB" in stream.getvalue()
