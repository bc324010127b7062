"""How many threads to compute with: the physical cores that this process may really use."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import RequestError
from .params import show

CORES, CGROUP = Path("/sys/devices/system/cpu"), Path("/sys/fs/cgroup")


def available() -> int:
    """Return OMP_NUM_THREADS where it is set, else the physical cores within the process's CPU set and quota.

    Two hardware threads of one core share its multipliers: a matmul on both is no faster than on one.
    """
    named = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # a list is for nested regions
    if named.isdecimal() and int(named) > 0:
        return int(named)
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_siblings(cpu) for cpu in cpus}
    return max(1, min(len(cores), _quota() or len(cores)))


def checked(threads: object) -> int:
    """Return a number of threads that was asked for, or the available ones for None.

    Raises RequestError outside 1 to 1,024.
    """
    if threads is None:
        return available()
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 1024:
        raise RequestError(f"threads={show(threads)} should be a whole number from 1 to 1024")
    return threads


def _siblings(cpu: int) -> str:
    """The hardware threads of this one's core, as Linux lists them; a name of its own where it does not."""
    file = CORES / f"cpu{cpu}" / "topology" / "thread_siblings_list"
    return _read(file) or f"cpu {cpu}"


def _quota() -> int | None:
    """How many CPUs' time a container grants (cgroup v2, then v1), rounded up; None without a limit."""
    limit, _, period = _read(CGROUP / "cpu.max").partition(" ")
    if not limit:
        limit = _read(CGROUP / "cpu" / "cpu.cfs_quota_us")
        period = _read(CGROUP / "cpu" / "cpu.cfs_period_us")
    if not (limit.isdecimal() and period.isdecimal()) or int(period) == 0:  # "max", or -1, is no limit
        return None
    return max(1, -(-int(limit) // int(period)))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
