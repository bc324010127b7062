"""Compile the C kernels into the package. They are optional: without them everything runs, more slowly.

The library has a plain C interface, loaded with ctypes: it is linked neither with Python nor with torch, so
one build serves every Python version, and a wheel is tagged for the platform only.
"""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

NATIVE = Path("src/bestiary/kernels/native")
NAME = "bestiary.kernels._native"
# No -march=native: a wheel runs on other machines too; the code asks the processor at run time.
# No contraction: a * b + c is rounded the same way wherever the compiler meets it, so that a row does not
# depend on its place.
FLAGS = ["-std=gnu11", "-O3", "-ffp-contract=off", "-g0", "-fvisibility=hidden", "-pthread"]
SLOWER = "quantised layers will run in PyTorch alone, several times slower"


class BuildNative(build_ext):
    """Build one shared library, and go on without it when that fails."""

    def get_ext_filename(self, fullname: str) -> str:
        """Return a.b.name as a/b/name.so: no Python version in it, since any of them loads it."""
        return str(Path(*fullname.split(".")).with_suffix(".so"))

    def get_export_symbols(self, ext: Extension) -> list[str]:
        """Return no names: there is no PyInit function to export."""
        return []

    def build_extension(self, ext: Extension) -> None:
        """Compile, or say in one line what is lost."""
        try:
            super().build_extension(ext)
        except (BaseError, CCompilerError) as error:
            for stale in (self.get_ext_fullpath(NAME), Path("src", self.get_ext_filename(NAME))):
                Path(stale).unlink(missing_ok=True)  # built from other sources: it must not answer for these
            print(f"bestiary: {SLOWER}: the C kernels were not built: {error}", file=sys.stderr)


class PlatformWheel(bdist_wheel):
    """Tag the wheel py3-none-<platform>."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tag: any Python 3, no Python ABI, this platform."""
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[
        Extension(
            NAME,
            sources=sorted(map(str, NATIVE.glob("*.c"))),
            depends=sorted(map(str, NATIVE.glob("*.h"))),
            extra_compile_args=FLAGS,
            extra_link_args=["-pthread"],
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildNative, "bdist_wheel": PlatformWheel},
)
