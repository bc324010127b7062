"""The two places where models lie on this machine, and what lies in them. Nothing here opens a socket.

- Our own cache, for the embedded models: `$BESTIARY_CACHE`, else `$XDG_CACHE_HOME/bestiary`, else
  `~/.cache/bestiary`.
- The Hugging Face cache, shared with every other tool: `$HF_HUB_CACHE`, else `$HF_HOME/hub`, else
  `~/.cache/huggingface/hub`. Layout: `models--ORG--NAME/{refs/BRANCH,blobs/HASH,snapshots/COMMIT/FILE}`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .. import roster
from ..errors import HubError
from ..files.paths import read_json
from .names import Name

# Best first: a folder with both kinds is read as the first.
WEIGHTS = (".safetensors", ".bin", ".gguf")
# What `bestiary adopt` writes into a folder that it makes: from what, and how.
RECORD = "adopted.json"
# Other things that are saved as .bin beside a model's weights.
NOT_WEIGHTS = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state.*)\.bin|consolidated.*")
SHARD = re.compile(r"(?P<stem>.+)-(?P<at>\d{5})-of-(?P<of>\d{5})(?P<kind>\.\w+)")


@dataclass(frozen=True)
class Local:
    """One model found on this machine: the name to call it by, where it is, its kind and its size in bytes.

    `complete` is False where shards are missing, as after a download that was cut off.
    """

    name: str
    path: Path
    kind: str
    nbytes: int
    complete: bool = True


def _folder(*choices: tuple[str, str], home: str) -> Path:
    for variable, below in choices:
        if value := os.environ.get(variable):
            return Path(os.path.expandvars(value)).expanduser() / below
    return Path.home() / ".cache" / home


def own_cache() -> Path:
    """The folder of the embedded models; it may not exist yet."""
    return _folder(("BESTIARY_CACHE", ""), ("XDG_CACHE_HOME", "bestiary"), home="bestiary")


def hub_cache() -> Path:
    """The folder of the Hugging Face cache; it may not exist yet."""
    return _folder(
        ("HF_HUB_CACHE", ""),
        ("HUGGINGFACE_HUB_CACHE", ""),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
        home="huggingface/hub",
    )


def is_offline() -> bool:
    """Whether the user has forbidden downloads, by the variables that the hub's own library reads."""
    said = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return said.upper() in ("1", "ON", "YES", "TRUE")


def repo_folder(repo: str) -> Path:
    """Where the Hugging Face cache keeps a repository."""
    return hub_cache() / "--".join(["models", *repo.split("/")])


def weight_files(folder: Path) -> list[Path]:
    """The files of the best kind of weights at the top of a folder, sorted; empty when it holds none.

    `consolidated.*` (Mistral's second copy of the same weights) counts only where there is nothing else.
    """
    names = [path for path in folder.iterdir() if path.suffix.lower() in WEIGHTS and path.is_file()]
    kept = [path for path in names if not NOT_WEIGHTS.fullmatch(path.name)] or [
        path for path in names if path.name.startswith("consolidated")
    ]
    for kind in WEIGHTS:
        if found := sorted(path for path in kept if path.suffix.lower() == kind):
            return found
    return []


def missing_shard(files: list[Path]) -> str | None:
    """The first of the shards `X-00002-of-00005.ext` that should be beside the ones given and is not."""
    sets: dict[tuple[str, str, str], set[int]] = {}
    for found in filter(None, (SHARD.fullmatch(path.name) for path in files)):
        sets.setdefault((found["stem"], found["of"], found["kind"]), set()).add(int(found["at"]))
    for (stem, of, kind), here in sets.items():
        # One more than there are is far enough to look: a name may announce 99,999.
        lost = next((at for at in range(1, len(here) + 2) if at not in here), 0)
        if lost <= int(of):
            return f"{stem}-{lost:05d}-of-{of}{kind}"
    return None


def is_later_shard(name: str) -> bool:
    """Whether a file name is that of a shard other than the first, which stands for them all."""
    found = SHARD.fullmatch(name)
    return found is not None and int(found["at"]) != 1


def snapshot(name: Name) -> Path | None:
    """The snapshot folder of a repository at a revision (default `main`), or None when it is not here.

    A revision is a branch or tag that was pulled, a commit, or the first 7 or more digits of one. Where only
    a commit was pulled there is no `main`: nobody said that it was.
    """
    folder = repo_folder(name.repo)
    commits = sorted(path.name for path in (folder / "snapshots").glob("*") if path.is_dir())
    ref = folder / "refs" / (name.revision or "main")
    if ref.is_file():
        with ref.open("rb") as file:
            commit = file.read(64).decode("ascii", "replace").strip()
        return folder / "snapshots" / commit if commit in commits else None
    digits = name.revision or ""
    fits = [commit for commit in commits if len(digits) >= 7 and commit.startswith(digits)]
    return folder / "snapshots" / fits[0] if len(fits) == 1 else None


def check_inside(path: Path) -> Path:
    """Refuse a file of the Hugging Face cache that is a link out of the cache. Raises HubError."""
    if not path.resolve().is_relative_to(hub_cache().resolve()):
        raise HubError(
            f"{path}: a link that leads out of the cache, to {path.resolve()}; it was not followed"
        )
    return path


def repository(path: Path) -> str | None:
    """The hub name of the repository that a path of the Hugging Face cache is in; None for another path."""
    folder = hub_cache()
    if not path.is_relative_to(folder):
        return None
    name, *_ = path.relative_to(folder).parts or ("",)
    return name.removeprefix("models--").replace("--", "/", 1) if name.startswith("models--") else None


def origin(path: Path) -> str | None:
    """The hub name of the checkpoint that a path is, or that a folder was adopted from; None for another."""
    if (name := repository(path)) is not None or not (path / RECORD).is_file():
        return name
    said = read_json(path / RECORD, limit=1 << 20).get("checkpoint")
    return said if isinstance(said, str) else None


def own_models() -> Iterator[Local]:
    """The models in our own cache: by their name in the roster, or else, where it is a file, by its path."""
    wheels = {entry.id: entry.wheel for entry in roster.entries().values() if entry.wheel is not None}
    known = {wheel.name: (id, wheel) for id, wheel in wheels.items()}
    for path in sorted(own_cache().glob("*")):
        id, wheel = known.get(path.name, (str(path), None))
        if path.is_file() and path.suffix == ".gguf":
            yield Local(id, path, "gguf", path.stat().st_size)
        elif wheel and path.is_dir() and (files := weight_files(path)):
            kind, complete = files[0].suffix.removeprefix("."), wheel.is_in(own_cache())
            yield Local(id, path, kind, _folder_nbytes(path), complete)


def hub_models() -> Iterator[Local]:
    """The repositories in the Hugging Face cache that hold weights, by hub name."""
    for folder in sorted(hub_cache().glob("models--*")):
        repo = folder.name.removeprefix("models--").replace("--", "/")
        for commit in sorted(path for path in (folder / "snapshots").glob("*") if path.is_dir()):
            here = snapshot(Name(repo))
            name = Name(repo) if commit == here else Name(repo, commit.name)
            yield from _in_snapshot(name, commit)


def _in_snapshot(name: Name, folder: Path) -> Iterator[Local]:
    """The model of a snapshot; or its models, where each GGUF file is one."""
    files = weight_files(folder)
    if not files:
        return
    kind, complete = files[0].suffix.lower().removeprefix("."), missing_shard(files) is None
    firsts = [path for path in files if not is_later_shard(path.name)]
    if kind == "gguf" and len(firsts) > 1:
        for path in firsts:
            yield Local(
                str(Name(name.repo, name.revision, path.name)), path, kind, path.stat().st_size, complete
            )
        return
    total = _folder_nbytes(folder)
    yield Local(str(name), firsts[0] if kind == "gguf" and firsts else folder, kind, total, complete)


def _folder_nbytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
