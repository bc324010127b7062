"""The folder that is made: written beside its place, moved there when whole, with what it came of."""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from ..errors import CheckpointError, RequestError
from ..files.writing import write_json
from ..hub.cache import RECORD

_CHUNK = 4 << 20

# A tokenizer and what is said of answers, as published folders call them.
_TEXT = re.compile(
    r"tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json|vocab\.json|"
    r"generation_config\.json|chat_template\.(json|jinja)|merges\.txt|vocab\.txt|[\w.-]+\.(model|tiktoken|vocab)"
)
_VOCABULARY = re.compile(r"tokenizer\.json|vocab\.(json|txt)|[\w.-]+\.(model|tiktoken)")


@contextlib.contextmanager
def making(folder: Path) -> Iterator[Path]:
    """Give a new folder to write to, which takes the name when all is done; on failure nothing is left.

    Raises RequestError for a folder that is not empty, and CheckpointError when the disk refuses.
    """
    check_free(folder)
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir(parents=True)
        try:
            yield temporary
            if folder.exists():
                folder.rmdir()  # it is empty, or this refuses
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except OSError as error:
        remedy = "Make room or choose another folder; nothing was left behind"
        raise CheckpointError(f"cannot be written: {error.strerror}", file=folder, remedy=remedy) from error


def check_free(folder: Path) -> None:
    """Raise RequestError for a place that holds something already, or that no new folder can take."""
    if folder.is_dir() and (what := _held(folder)):
        raise RequestError(f"{folder} is {what}, which no new folder can replace\nTry: --to a folder in it")
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        what = "is not empty" if folder.is_dir() else "is no folder"
        raise RequestError(f"{folder} {what}, and nothing is overwritten\nTry: --to another folder")


def _held(folder: Path) -> str | None:
    """Return what keeps an empty folder where it is, so that hours of writing do not end in that."""
    if folder.is_symlink():
        return "a link"
    if folder.samefile(Path.cwd()):
        return "the folder that this runs in"
    return "a mount point" if folder.is_mount() else None


def has_tokenizer(folder: Path) -> bool:
    """Tell whether a folder holds a tokenizer."""
    return any(_VOCABULARY.fullmatch(file.name) for file in folder.iterdir() if file.is_file())


def copy_text(sources: Iterable[Path], folder: Path) -> Path | None:
    """Copy the tokenizer of the first folder that has one, with what lies beside it; return that folder."""
    source = next((source for source in sources if has_tokenizer(source)), None)
    if source is not None:
        for file in sorted(source.iterdir()):
            if file.is_file() and _TEXT.fullmatch(file.name):
                shutil.copyfile(file, folder / file.name)
    return source


def digests(files: Iterable[Path], read: Callable[[int], None]) -> dict[str, str]:
    """Return the SHA-256 of files by name. read: told the bytes of each piece."""
    found = {}
    for file in files:
        digest = hashlib.sha256()
        with file.open("rb") as opened:
            while chunk := opened.read(_CHUNK):
                digest.update(chunk)
                read(len(chunk))
        found[file.name] = digest.hexdigest()
    return found


def record(folder: Path, made: Mapping[str, object]) -> None:
    """Write what a folder was made from, and how."""
    write_json(folder / RECORD, {"program": f"bestiary {version('bestiary')}", **made})
