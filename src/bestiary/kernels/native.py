"""The library of C kernels: found, loaded once, and joined to torch's threads.

It is built when the package is installed (kernels/native/*.c into kernels/_native.so) and called through
ctypes, so it is linked neither with Python nor with torch. Everything works without it, more slowly.
BESTIARY_NATIVE=0 turns it off.
"""

from __future__ import annotations

import ctypes
import functools
import os
from ctypes import c_char_p, c_int, c_size_t, c_void_p
from pathlib import Path

import torch

from ..errors import KernelError
from ..formats import FORMATS

__all__ = ["Library", "about", "absence", "library"]

# The signatures below belong to this number; bestiary_abi() of the library must answer it.
_ABI = 1
_SWITCH = "BESTIARY_NATIVE"
# OpenMP runtimes that torch can have loaded: its own libgomp, or those of conda's builds. All offer libgomp's
# entry.
_RUNTIMES = ("libgomp", "libiomp5", "libomp")


class Library:
    """The C functions, with their argument types, and the number of each format.

    Arguments are addresses and sizes that the caller has checked: nothing is checked on the other side.
    """

    def __init__(self, path: Path) -> None:
        try:
            c = ctypes.CDLL(str(path))
        except OSError as error:
            raise KernelError(f"{path} cannot be loaded ({error}); reinstall the package") from error
        if not hasattr(c, "bestiary_abi") or c.bestiary_abi() != _ABI:
            raise KernelError(f"{path} was built from other sources; reinstall the package")
        c.bestiary_isa.restype = c_char_p
        c.bestiary_use_isa.argtypes = [c_char_p]
        c.bestiary_format.argtypes = [c_char_p]
        c.bestiary_use_openmp.argtypes = [c_void_p] * 3
        # format, weight, rows, row bytes, columns, x, vectors, bias, y, threads
        self.linear = c.bestiary_linear
        self.linear.argtypes = [
            c_int, c_void_p, c_size_t, c_size_t, c_size_t, c_void_p, c_size_t, c_void_p, c_void_p, c_int,
        ]  # fmt: skip
        # format, packed, rows, row bytes, columns, y, threads
        self.decode = c.bestiary_decode
        self.decode.argtypes = [c_int, c_void_p, c_size_t, c_size_t, c_size_t, c_void_p, c_int]
        self.linear.restype = self.decode.restype = None
        self._c = c
        self.formats = {name: c.bestiary_format(name.encode()) for name in ("F32", *FORMATS)}
        self.threads = self._join_openmp()

    @property
    def isa(self) -> str:
        """The instruction set in use: "AVX-512", "AVX2" or "plain C"."""
        name: bytes = self._c.bestiary_isa()
        return name.decode()

    def use_isa(self, name: str) -> None:
        """Use another instruction set of this processor, for tests. KernelError when it lacks it."""
        if self._c.bestiary_use_isa(name.encode()):
            raise KernelError(f"this processor has no {name!r}")

    def _join_openmp(self) -> str:
        """Hand the entry points of torch's OpenMP runtime over; return its name, or that of our own pool."""
        for path in _loaded_runtimes():
            runtime = ctypes.CDLL(str(path))
            entries = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
            if all(hasattr(runtime, name) for name in entries):
                self._c.bestiary_use_openmp(*(ctypes.cast(getattr(runtime, e), c_void_p) for e in entries))
                return path.name
        return "own threads"


def _loaded_runtimes() -> list[Path]:
    """List the OpenMP runtimes mapped into this process, in the order they were (Linux; elsewhere none)."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    paths = dict.fromkeys(Path(line.split(maxsplit=5)[-1]) for line in lines if "/" in line)
    return [path for path in paths if path.name.startswith(_RUNTIMES)]


@functools.cache
def _load() -> Library | str:
    """Return the library, or the reason why there is none."""
    if os.environ.get(_SWITCH, "1") == "0":
        return f"{_SWITCH}=0 turns it off"
    path = Path(__file__).with_name("_native.so")
    if not path.is_file():
        return "the C kernels were not built; reinstall the package with a C compiler at hand"
    try:
        return Library(path)
    except KernelError as error:
        return str(error)


def library() -> Library:
    """Return the library. KernelError with the reason when there is none."""
    found = _load()
    if isinstance(found, str):
        raise KernelError(found)
    return found


def absence() -> str | None:
    """Return why there is no library, or None when there is one."""
    found = _load()
    return found if isinstance(found, str) else None


def about() -> str:
    """Say what the kernels run on here. KernelError with the reason when there is no library."""
    here = library()
    return f"{here.isa}, {torch.get_num_threads()} threads of {here.threads}"
