"""Opening files that a stranger sent: names stay in the model's folder, and only regular files are opened.

A name that comes out of a file (an index's `weight_map`, a config) is a request by whoever wrote that file.
It is checked as text, then as a place on disk. The Hugging Face cache, whose snapshots are links to
`../../blobs`, is the one layout in which a link may leave the folder. Ours to refuse: CVE-2026-75104,
CVE-2026-69112, CVE-2026-65920.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, ConfigError
from . import strict_json

JSON_LIMIT = 64 << 20
_NAME_LIMIT = 255
_TENSOR_NAME_LIMIT = 1000
_KERNEL = re.compile("/(proc|sys|dev)/(?!shm/)")
_ESCAPES = "./\\:%~"
_LOOK_ALIKES = (
    "\u3002\uff61\u2044\u2215\u2216\u29f5\u29f8\u29f9"  # full stops and slashes that NFKC leaves be
)
_DEVICE = re.compile(r"(?i:CON|PRN|AUX|NUL|COM\d|LPT\d)(\..*)?")
_PERCENT = re.compile("%[0-9A-Fa-f]{2}")
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY
_RETRY = "Rename it, or download the model again"


def resolve(folder: Path, name: str) -> Path:
    """Return `folder / name` for a name that a file gave.

    Raises CheckpointError unless the name is plain (no `..`, absolute or Windows path, control character,
    look-alike or percent-encoded dot or slash, 255 characters at most) and lies inside the folder when links
    are followed.
    """
    if fault := _fault(name):
        raise CheckpointError(f"the file name {name[:80]!r} {fault}", file=folder, remedy=_RETRY)
    root, real = Path(os.path.realpath(folder)), Path(os.path.realpath(folder / name))
    if real.is_relative_to(root) or _is_cached_blob(root, real):
        return folder / name
    raise CheckpointError(
        f"{name!r} is a link that leads out of the model's folder, to {real}",
        file=folder,
        remedy="Copy the file into the folder, or name the folder where it lies",
    )


def _fault(name: str) -> str | None:
    """Return what is wrong with a name as text."""
    if not name or len(name) > _NAME_LIMIT:
        return f"has {len(name)} characters; 1 to {_NAME_LIMIT} are allowed"
    if not name.isprintable():  # control, bidirectional, zero-width and surrogate characters
        return "holds a character that cannot be seen"
    if "\\" in name or ":" in name:
        return "is a Windows path"
    parts = name.split("/")
    if not all(parts) or name.startswith("~"):
        return "is no relative path"
    if any(part.endswith(".") or part != part.strip() for part in parts):
        return "has a part that ends in a dot, or begins or ends in a space"
    if any(_DEVICE.fullmatch(part) for part in parts):
        return "is a device on Windows"
    folded = unicodedata.normalize("NFKC", name)
    disguised = any(folded.count(c) != name.count(c) for c in _ESCAPES) or any(
        c in name for c in _LOOK_ALIKES
    )
    if disguised or _PERCENT.search(name):
        return "disguises a dot, a slash or another character"
    return None


def _is_cached_blob(root: Path, real: Path) -> bool:
    """Tell whether a link of `models--*/snapshots/<revision>` leads to `models--*/blobs` of the same model,
    or to the `blobs` beside `models--*`, which all models share since huggingface_hub 2.
    """
    for parent in root.parents:
        if parent.name == "snapshots" and parent.parent.name.startswith("models--"):
            model = parent.parent
            return any(real.is_relative_to(folder / "blobs") for folder in (model, model.parent))
    return False


def check_tensor_name(name: str, *, file: Path, offset: int | None = None) -> None:
    """Raise CheckpointError for a tensor name that is empty, too long, unprintable, or a path."""
    if not 0 < len(name) <= _TENSOR_NAME_LIMIT:
        fault = f"the tensor's name has {len(name)} characters; 1 to {_TENSOR_NAME_LIMIT} are allowed"
    elif not name.isprintable():
        fault = "the tensor's name holds a character that cannot be seen"
    elif name[0] in "/\\" or ".." in re.split(r"[/\\]", name):
        fault = "the tensor's name is a path"
    else:
        return
    raise CheckpointError(fault, file=file, tensor=name, offset=offset, remedy="Do not use this file")


def open_regular(path: Path) -> int:
    """Return a descriptor of a regular file, open for reading.

    Links are followed; what a model's folder holds must have passed `resolve` before. Never blocks. Raises
    CheckpointError: no such file, a folder, FIFO, socket, device, anything of /proc or /sys, or no
    permission.
    """
    try:
        real = os.path.realpath(path)
        # Looked at before it is opened: opening a device can have effects, and a FIFO without a writer waits.
        _check_regular(path, real, Path(real).stat())
        descriptor = os.open(real, _FLAGS)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CheckpointError(f"cannot be opened: {reason}", file=path, remedy="Check the path") from error
    try:
        _check_regular(path, real, os.fstat(descriptor))
    except CheckpointError:
        os.close(descriptor)
        raise
    return descriptor


def _check_regular(path: Path, real: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode) or _KERNEL.match(real):
        kind = "folder" if stat.S_ISDIR(status.st_mode) else "device, pipe or other special file"
        raise CheckpointError(f"is a {kind}, not a regular file", file=path, remedy="Name the file itself")


def read_bytes(path: Path, *, limit: int) -> bytes:
    """Return the content of a file of a model's folder.

    Raises CheckpointError: as `resolve` and `open_regular` do, and for more than `limit` bytes.
    """
    resolve(path.parent, path.name)
    descriptor = open_regular(path)
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise CheckpointError(f"has more than {limit:,} bytes", file=path, remedy="It is no file of its kind")
    return data


def read_json(path: Path, *, limit: int = JSON_LIMIT) -> dict[str, Any]:
    """Return the object in a JSON file of a model's folder: config.json, tokenizer.json and their kin.

    As published files are written: of a key written twice the last counts, and an integer past 64 bits is a
    float. Raises ConfigError: no such file, not a regular one, larger than `limit` bytes, not UTF-8, not
    JSON, nested deeper than 64 levels, NaN or Infinity, or no object.
    """
    return _read_json(path, limit, dict)  # type: ignore[no-any-return]  # of that kind, or an error


def read_json_list(path: Path, *, limit: int = JSON_LIMIT) -> list[Any]:
    """Read a JSON file that holds a list, as read_json does one that holds an object."""
    return _read_json(path, limit, list)  # type: ignore[no-any-return]


def _read_json(path: Path, limit: int, kind: type) -> Any:
    try:
        data = read_bytes(path, limit=limit)
    except CheckpointError as error:
        raise ConfigError(str(error)) from error
    try:
        value = strict_json.parse(data, lenient=True)
    except strict_json.InvalidJSONError as fault:
        where = "" if fault.offset is None else f" at {fault.offset}"
        raise ConfigError(f"{path}{where}: {fault.reason}. Download the file again") from fault
    if not isinstance(value, kind):
        wanted = "an object" if kind is dict else "a list"
        raise ConfigError(
            f"{path}: holds a {type(value).__name__} where {wanted} should be. Download it again"
        )
    return value
