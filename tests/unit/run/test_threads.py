"""Counting cores on machines that are described by files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from bestiary.errors import RequestError
from bestiary.run import threads

# What the files say -> cores. Four hardware threads on two cores unless there is nothing to read.
PAIRED = {f"cpu{i}/topology/thread_siblings_list": f"{i % 2},{i % 2 + 2}\n" for i in range(4)}
MACHINES: list[tuple[dict[str, str], dict[str, str], int]] = [
    ({}, {}, 4),
    (PAIRED, {}, 2),
    (PAIRED, {"cpu.max": "max 100000\n"}, 2),
    (PAIRED, {"cpu.max": "100000 100000\n"}, 1),
    (PAIRED, {"cpu.max": "110000 100000\n"}, 2),
    (PAIRED, {"cpu.max": "1000 100000\n"}, 1),
    (PAIRED, {"cpu.max": "900000 100000\n"}, 2),
    (PAIRED, {"cpu.max": "100000 0\n"}, 2),
    (PAIRED, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
    (PAIRED, {"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
]


@pytest.mark.parametrize(("cores", "cgroup", "count"), MACHINES)
def test_available(
    cores: dict[str, str], cgroup: dict[str, str], count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, files in (("cores", cores), ("cgroup", cgroup)):
        for name, text in files.items():
            file = tmp_path / folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    monkeypatch.setattr(threads, "CORES", tmp_path / "cores")
    monkeypatch.setattr(threads, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads.available() == count


@pytest.mark.parametrize(("value", "count"), [("3", 3), ("5,2", 5), ("0", 4), ("many", 4), ("", 4)])
def test_the_environment_decides(
    value: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "CORES", tmp_path)
    monkeypatch.setattr(threads, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert threads.available() == count
    assert threads.checked(None) == count


@pytest.mark.parametrize("value", [0, -1, 1025, 1.0, True, "2"])
def test_other_numbers_are_refused(value: Any) -> None:
    with pytest.raises(RequestError, match="threads="):
        threads.checked(value)


def test_a_number_is_taken() -> None:
    assert threads.checked(7) == 7
