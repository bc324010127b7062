"""How fast this machine reads memory: measured once, with the C library alone, and kept in our cache."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import sys
import threading
import time
from pathlib import Path
from typing import Any

# Beyond any processor's last level of cache, for each of the two texts that are compared.
_BYTES = 128 << 20
_ROUNDS = 4


def bandwidth(folder: Path) -> float | None:
    """Bytes a second that all cores together read; None where it cannot be measured.

    folder: where the number is kept, if the machine was not busy when it was measured. Another processor, or
    another number of cores, is measured anew.
    """
    file, here = folder / "bandwidth.json", _machine()
    try:
        kept = json.loads(file.read_text("utf-8"))
        if kept["machine"] == here and kept["bytes_a_second"] > 0:
            return float(kept["bytes_a_second"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not measured yet, or not by this program
    found = measured()
    if found is not None and not _is_busy():
        _keep(file, {"machine": here, "bytes_a_second": round(found)})
    return found


def measured() -> float | None:
    """Compare two equal texts, a part on each core: the C library reads both, and does nothing else."""
    try:
        library = ctypes.CDLL("msvcrt" if sys.platform == "win32" else None)
        compare, fill = library.memcmp, library.memset
    except (OSError, AttributeError):
        return None
    compare.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    fill.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    count = cores()
    part = _BYTES // count
    texts = [tuple(ctypes.create_string_buffer(part) for _ in range(2)) for _ in range(count)]
    for text in (text for pair in texts for text in pair):
        fill(text, 1, part)  # memory that nobody wrote to is one page of zeros, over and over
    best = min(_seconds(lambda pair: compare(*pair, part), texts) for _ in range(_ROUNDS))
    return 2 * part * count / best


def _seconds(work: Any, parts: list[Any]) -> float:
    """How long the parts take, each in a thread of its own: ctypes lets others run while C does."""
    threads = [threading.Thread(target=work, args=(part,)) for part in parts]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def _is_busy() -> bool:
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > 0.5 * cores()


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _machine() -> str:
    """What tells one machine from another: its processor and cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {cores()} cores"


def _keep(file: Path, value: object) -> None:
    """Write the file whole, or not at all: a cache that cannot be written is no error."""
    temporary = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(value) + "\n", encoding="utf-8")
        temporary.replace(file)
    except OSError:
        temporary.unlink(missing_ok=True)
