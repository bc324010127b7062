"""The library of C kernels: found, loaded once, and joined to torch's threads.

It is built when the package is installed (kernels/native/*.c into kernels/_native.so) and called through
ctypes, so it is linked neither with Python nor with torch. Everything works without it, more slowly.
BESTIARY_NATIVE=0 turns it off.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from ctypes import POINTER, c_char_p, c_float, c_int, c_size_t, c_void_p
from pathlib import Path

import torch

from ..errors import KernelError
from ..formats import FORMATS

__all__ = ["Block", "Library", "Matrix", "Tokens", "about", "absence", "isas", "library"]

# The signatures below belong to this number; bestiary_abi() of the library must answer it.
_ABI = 4
_SWITCH = "BESTIARY_NATIVE"


class Matrix(ctypes.Structure):
    """A weight as it lies in memory (`matrix` in native/block.h)."""

    _fields_ = (
        ("w", c_void_p),
        ("bias", c_void_p),
        ("rows", c_size_t),
        ("columns", c_size_t),
        ("row_bytes", c_size_t),
        ("format", c_size_t),
    )


class Block(ctypes.Structure):
    """One pre-norm block of a Llama (`block` in native/block.h, which says what each field means)."""

    _fields_ = (
        *((name, Matrix) for name in ("q", "k", "v", "o", "gate", "up", "down")),
        ("attn_norm", c_void_p),
        ("mlp_norm", c_void_p),
        *((name, c_size_t) for name in ("heads", "kv_heads", "dim", "turned", "interleaved", "window")),
        ("attn_eps", c_float),
        ("mlp_eps", c_float),
        ("scale", c_float),
    )


class Tokens(ctypes.Structure):
    """The tokens of a step (`tokens` in native/block.h, which says what each field means)."""

    _fields_ = (
        *((name, c_size_t) for name in ("count", "sequences", "most", "page", "turns_step")),
        *((name, c_void_p) for name in ("begins", "starts", "tables", "turns")),
        ("keys", POINTER(c_void_p)),
        ("values", POINTER(c_void_p)),
        ("magnitude", c_float),
    )


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
        # format, weight, rows, row bytes, columns, x, floats from vector to vector, vectors, bias, y, threads
        self.linear = c.bestiary_linear
        self.linear.argtypes = [
            c_int, c_void_p, *[c_size_t] * 3, c_void_p, *[c_size_t] * 2, c_void_p, c_void_p, c_int,
        ]  # fmt: skip
        # format, packed, rows, row bytes, columns, y, threads
        self.decode = c.bestiary_decode
        self.decode.argtypes = [c_int, c_void_p, c_size_t, c_size_t, c_size_t, c_void_p, c_int]
        # blocks, how many, tokens, x, scratch, threads
        self.blocks = c.bestiary_blocks
        self.blocks.argtypes = [POINTER(Block), c_size_t, POINTER(Tokens), c_void_p, c_void_p, c_int]
        # x, weight, rows, width, eps, y, threads
        self.rms_norm = c.bestiary_rms_norm
        self.rms_norm.argtypes = [c_void_p, c_void_p, c_size_t, c_size_t, c_float, c_void_p, c_int]
        for function in (self.linear, self.decode, self.blocks, self.rms_norm):
            function.restype = None
        # blocks, how many, tokens, threads -> floats of scratch
        self.blocks_scratch = c.bestiary_blocks_scratch
        self.blocks_scratch.argtypes = [POINTER(Block), c_size_t, POINTER(Tokens), c_int]
        self.blocks_scratch.restype = c_size_t
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
        """Hand the entry points of torch's OpenMP runtime over; return whose threads are used."""
        entries = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
        for path in (Path(torch.__file__).parent / "lib").glob("libtorch_cpu.*"):
            # Looked up through torch's own library, so found in the runtime that torch is linked with. Others
            # may be loaded too (sentencepiece brings one): two pools of spinning threads get in each other's
            # way, and a prefill of 512 tokens then takes 1.7 s instead of 0.65.
            runtime = ctypes.CDLL(str(path))
            if all(hasattr(runtime, name) for name in entries):
                self._c.bestiary_use_openmp(*(ctypes.cast(getattr(runtime, e), c_void_p) for e in entries))
                return "torch's OpenMP"
        return "our own pool"


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


def isas() -> list[str]:
    """Return the instruction sets that this processor runs, best first; none without the library."""
    found = _load()
    if isinstance(found, str):
        return []
    here, names = found.isa, list[str]()
    for name in ("AVX-512", "AVX2", "plain C"):
        with contextlib.suppress(KernelError):
            found.use_isa(name)
            names.append(name)
    found.use_isa(here)
    return names
