"""Download a repository of the Hugging Face hub into its cache.

The one module that imports huggingface_hub, and only when there is something to ask of the hub. The files are
downloaded under their commit first and the branch is pointed at that commit last, so a name never resolves to
half of a model.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from ..errors import HubError
from . import cache
from .choose import choose
from .names import Name
from .watch import Progress, watched

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT = 30.0  # seconds, for the one question about what the repository holds
_STALE = 60.0  # seconds without a write, after which a partial file may be nobody's


def fetch(name: Name, *, progress: Progress | None) -> str:
    """Download what `name` means and return its commit. Raises HubError, with the remedy, for any failure."""
    if cache.is_offline():
        return _kept(name)
    try:
        return _fetch(name, progress)
    except HubError:
        raise
    except Exception as problem:
        # The library raises its own errors, those of its HTTP client (another one in each major version),
        # OSError and AssertionError; a user needs the one reason and the remedy.
        raise _explain(problem, name) from problem


def _kept(name: Name) -> str:
    folder = cache.snapshot(name)
    if folder is None:
        raise HubError(
            f"{name} is not in {cache.hub_cache()}, and HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set.\n"
            f"Try: HF_HUB_OFFLINE=0 TRANSFORMERS_OFFLINE=0 bestiary pull {name}"
        )
    return folder.name


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _fetch(name: Name, progress: Progress | None) -> str:
    from huggingface_hub import HfApi, snapshot_download

    api = HfApi(endpoint=_endpoint(), library_name="bestiary")
    info = api.model_info(name.repo, revision=name.revision, files_metadata=True, timeout=_TIMEOUT)
    commit, sizes = _contents(info, name)
    files = choose(sizes, name)
    folder = cache.repo_folder(name.repo) / "snapshots" / commit
    need = sum(sizes[path] for path in files if not _is_here(folder / path, sizes[path]))
    if progress is not None:
        total = sum(sizes[path] for path in files)
        told = f"{total / 1e6:,.1f} MB, of which {need / 1e6:,.1f} MB to download"
        progress(f"{name.repo} at {commit[:12]}: {len(files)} files, {told}")
    blobs = folder.parents[1] / "blobs"
    _sweep(blobs)
    _check_room(need)
    with watched(blobs, need, progress):
        snapshot_download(
            name.repo,
            revision=commit,
            endpoint=_endpoint(),
            cache_dir=cache.hub_cache(),
            # Names, not patterns: a '[' in one must mean itself.
            allow_patterns=[glob.escape(path) for path in files],
            library_name="bestiary",
            tqdm_class=_no_bar(),
        )
    # Old versions of the library return an incomplete folder, with a warning, when the connection drops.
    if lost := [path for path in files if not _is_here(folder / path, sizes[path])]:
        raise HubError(f"{name.repo}: {lost[0]} did not arrive whole.\nTry: bestiary pull {name}")
    _publish(name, commit)
    return commit


def _contents(info: ModelInfo, name: Name) -> tuple[str, dict[str, int]]:
    """The commit and the size of each file, as the hub says, checked: a hub can be anybody's server."""
    if not _COMMIT.fullmatch(info.sha or ""):
        raise HubError(f"{_endpoint()} gave no commit for {name.repo}.\nTry: check HF_ENDPOINT")
    sizes = {item.rfilename: item.size for item in info.siblings or []}
    return str(info.sha), {path: size if isinstance(size, int) else 0 for path, size in sizes.items()}


def _is_here(path: Path, size: int) -> bool:
    # 0: the hub did not say.
    return path.is_file() and size in (0, path.stat().st_size)


def _sweep(blobs: Path) -> None:
    """Delete what downloads that were killed left behind: the library starts a fresh file each time.

    One that is alive in another process holds the lock of its blob and, where locks do not work (some
    network file systems), it writes all the time.
    """
    locks = cache.hub_cache() / ".locks" / blobs.parent.name
    for path in blobs.glob("*.incomplete"):
        if time.time() - path.stat().st_mtime < _STALE:
            continue
        lock = FileLock(locks / f"{path.name.split('.')[0]}.lock", timeout=0)
        with contextlib.suppress(Timeout), lock:
            path.unlink(missing_ok=True)


def _check_room(need: int) -> None:
    root = cache.hub_cache()
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if free < need:
        raise HubError(
            f"{need / 1e9:,.2f} GB are to be downloaded, and {root} has {free / 1e9:,.2f} GB left.\n"
            "Try: make room, or set HF_HUB_CACHE to a folder on another disk"
        )


def _no_bar() -> type:
    """The library's progress bar, never drawn: it draws three, in another way in each version."""
    from huggingface_hub.utils.tqdm import tqdm

    class Undrawn(tqdm):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]

    return Undrawn


def _publish(name: Name, commit: str) -> None:
    """Point the branch at the commit, as the library does, but only now that its files are all there."""
    revision = name.revision or "main"
    if _COMMIT.fullmatch(revision):
        return
    ref = cache.repo_folder(name.repo) / "refs" / revision
    ref.parent.mkdir(parents=True, exist_ok=True)
    fresh = ref.with_name(f".{ref.name}.{os.getpid()}")
    fresh.write_text(commit, "ascii")
    fresh.replace(ref)


def _explain(problem: BaseException, name: Name) -> HubError:
    """One error with the remedy, from whatever the library raised."""
    chain: list[BaseException] = []
    at: BaseException | None = problem
    while at is not None and at not in chain:
        chain.append(at)
        at = at.__cause__ or at.__context__
    hub, again = _endpoint(), f"bestiary pull {name}, which keeps the files that are whole"
    if any(isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT) for error in chain):
        return HubError(f"the disk of {cache.hub_cache()} is full.\nTry: make room, then {again}")
    kinds = {kind.__name__ for error in chain for kind in type(error).__mro__}
    status = next((code for error in chain if (code := _status(error))), 0)
    if "RevisionNotFoundError" in kinds:
        wrong = f"{name.repo} has no branch, tag or commit {name.revision!r}"
        return HubError(f"{wrong}.\nTry: bestiary pull {name.repo}")
    if "GatedRepoError" in kinds or status == 403:
        wrong = f"{name.repo} is open only to those who accepted its terms"
        return HubError(f"{wrong}.\nTry: accept them at {hub}/{name.repo}, then set HF_TOKEN to your token")
    if "RepositoryNotFoundError" in kinds or status in (401, 404):
        wrong = f"{hub} shows no model {name.repo}: there is none, or it is private"
        return HubError(
            f"{wrong}.\nTry: check its name at {hub}, or set HF_TOKEN to a token that may read it"
        )
    if status == 429 or status >= 500:
        return HubError(f"{hub} answered {status} for {name.repo}.\nTry: in a while, {again}")
    reason = " ".join(str(chain[-1]).split())[:300] or type(chain[-1]).__name__
    wrong = f"downloading {name.repo} from {hub} failed: {reason}"
    return HubError(f"{wrong}.\nTry: check the network (HF_ENDPOINT, HTTPS_PROXY), then {again}")


def _status(error: BaseException) -> int:
    status = getattr(getattr(error, "response", None), "status_code", 0)
    return status if isinstance(status, int) else 0
