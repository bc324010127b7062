"""Freed memory is kept: counted in page faults, in a process of its own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from bestiary.run.memory import keep_freed
kept = len(sys.argv) == 1 and keep_freed()
for turn in range(60):
    if turn == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    layer = [torch.ones(1 << 19) for _ in range(16)]  # 2 MiB each
    del layer
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*arguments: str, **variables: str) -> tuple[bool, int]:
    run = [sys.executable, "-c", PROGRAM, *arguments]
    environment = {**os.environ, **variables}
    out = subprocess.run(run, env=environment, check=True, capture_output=True, text=True).stdout
    kept, count = out.split()
    return kept == "1", int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's allocator that is told")
def test_pages_are_asked_for_once() -> None:
    (kept, few), (_, many) = faults(), faults("as it comes")
    assert kept
    assert few < 100 < many


def test_whoever_set_malloc_is_left_in_charge() -> None:
    assert not faults(MALLOC_TRIM_THRESHOLD_="1000000")[0]
