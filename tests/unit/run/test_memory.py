"""Freed memory is kept: counted in page faults, in a process of its own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

# The gated MLP of SmolLM2-135M over 512 tokens, from glibc's first thresholds: by itself it moves them with
# what was freed before, and how far depends on the machine.
PROGRAM = """
import ctypes, resource, sys, torch
from bestiary.run.memory import keep_freed
for threshold in (-1, -3):
    getattr(ctypes.CDLL(None), "mallopt", lambda *_: 0)(threshold, 128 << 10)
kept = len(sys.argv) == 1 and keep_freed()
x, up, down = torch.ones(512, 576), torch.ones(1536, 576), torch.ones(576, 1536)
with torch.inference_mode():
    for turn in range(60):
        if turn == 20:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        x = (torch.nn.functional.silu(x @ up.T) * (x @ up.T)) @ down.T
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*arguments: str, **variables: str) -> tuple[bool, int]:
    run = [sys.executable, "-c", PROGRAM, *arguments]
    environment = {**os.environ, **variables}
    out = subprocess.run(run, env=environment, check=True, capture_output=True, text=True).stdout
    kept, count = out.split()
    return kept == "1", int(count)


def test_pages_are_asked_for_once() -> None:
    (kept, few), (_, many) = faults(), faults("as it comes")
    assert kept == (platform.libc_ver()[0] == "glibc"), "it is glibc's allocator that is told"
    assert few < 1000 < many or not kept


def test_whoever_set_malloc_is_left_in_charge() -> None:
    assert not faults(MALLOC_TRIM_THRESHOLD_="1000000")[0]
