"""The wheel holds the package and the C library, and is made without a compiler too."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools.sources import ROOT, tracked

SOURCES = [path.relative_to(ROOT) for path in tracked() if path.relative_to(ROOT).parts[0] == "src"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy to build in, so that nothing built before is in it."""
    folder = tmp_path_factory.mktemp("sources")
    for path in (*SOURCES, Path("pyproject.toml"), Path("setup.py"), Path("README.md"), Path("LICENSE")):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, folder / path)
    return folder


def _wheel(sources: Path, **environment: str) -> tuple[Path, str]:
    """Build a wheel as pip does, and return it with what was printed."""
    command = [sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "--no-build-isolation", "--no-index"]
    ran = subprocess.run(
        [*command, "--wheel-dir", "wheels", "."],
        cwd=sources,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    (wheel,) = (sources / "wheels").glob("*.whl")
    return wheel, ran.stdout


def test_the_wheel_is_whole(sources: Path) -> None:
    wheel, _ = _wheel(sources)
    assert "-py3-none-" in wheel.name, "the library has no Python ABI"
    assert not wheel.name.endswith("-any.whl"), "the library is made for one platform"
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("bestiary/")}
        library = Path(archive.extract("bestiary/kernels/_native.so", sources / "unpacked"))
        (info,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "bestiary = bestiary.cli:main" in archive.read(info).decode()
    wanted = {path.relative_to("src").as_posix() for path in SOURCES if path.suffix not in (".c", ".h")}
    assert held == wanted | {"bestiary/kernels/_native.so"}
    ctypes.CDLL(str(library))


def test_no_compiler_is_no_obstacle(sources: Path) -> None:
    """A library that was built before, from other sources, must not be packed either."""
    shutil.rmtree(sources / "wheels", ignore_errors=True)
    for path in (sources / "src/bestiary/kernels/native").iterdir():
        path.touch()
    wheel, printed = _wheel(sources, CC=str(sources / "no-compiler"))
    assert len([line for line in printed.splitlines() if "C kernels were not built" in line]) == 1
    with zipfile.ZipFile(wheel) as archive:
        assert not any(name.endswith(".so") for name in archive.namelist())
        assert "bestiary/kernels/__init__.py" in archive.namelist()
