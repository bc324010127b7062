"""Published forms that are no model by themselves, or not one that every program reads, made into one.

job = find("vicuna-7b-delta-v1.1", base="llama-7b")   # what it is, and what will be done
adopt(job, "vicuna-7b")                               # a folder: safetensors, config.json, tokenizer
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import hub, roster
from ..adapters import is_adapter, read
from ..errors import HubError, RequestError
from ..files.safetensors import write_planned
from ..files.writing import write_json
from ..hub.cache import RECORD, repository
from . import folder as folders
from .arithmetic import ARITHMETICS
from .jobs import Difference, Job, Merging, Telling
from .prefixed import Prefixed, is_prefix
from .sides import Side
from .xor import is_encrypted

__all__ = ["ARITHMETICS", "Adopted", "Job", "adopt", "find"]

# Bytes read and written, and in all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Adopted:
    """A folder that was made. tokenizer: whose it has; None where no folder had one."""

    path: Path
    nbytes: int
    tokenizer: Path | None
    notes: tuple[str, ...]


def find(
    source: str, *, base: str | None = None, adapters: Sequence[str] = (), how: str | None = None
) -> Job:
    """Tell what a source is, and what has to be done with it.

    source, base, adapters: paths, or names on this machine as `hub.resolve` takes them. how: the arithmetic
    of a difference, a key of ARITHMETICS, where its name does not tell. Raises RequestError for what is
    missing, HubError for names that are not here, and as load does.
    """
    if how is not None and how not in ARITHMETICS:
        raise RequestError(f"--how {how[:40]!r} is no arithmetic known here\nTry: {', '.join(ARITHMETICS)}")
    path, known = _local(source), _published(source)
    made = (path / RECORD).is_file()
    if made and not adapters:
        raise RequestError(f"{path} was adopted already: it is a model\nTry: bestiary chat {path}")
    if is_adapter(path):
        if how is not None:
            raise RequestError(f"{path} is an adapter, which --how {how} says nothing of\nTry: without --how")
        return _adapter(path, known, base, adapters)
    if how := how or (known.how if known is not None and not made else None):
        return _difference(source, path, known, base=base, adapters=adapters, how=how)
    if adapters and base is not None:
        raise RequestError(
            f"{path} and {base} cannot both be what the adapters go on\nTry: without --base; or, if the "
            "first is a difference, --how without --adapter, and the adapters in a second step"
        )
    if adapters:
        return Merging.of(path, [*map(_local, adapters)])
    if base is not None and is_prefix(path):
        return Prefixed.of(path, _local(base))
    if base is not None or "delta" in path.name.lower():
        said = f"how {source} differs from its base is not known here: its name is none of the roster's"
        raise RequestError(f"{said}\nTry: --base FOLDER --how with one of {', '.join(ARITHMETICS)}")
    if is_encrypted(path):
        raise RequestError(
            f"{path} was encrypted with LLaMA's own file\nTry: --how xor --base FOLDER/consolidated.00.pth"
        )
    return Telling(Side.open(path))


def adopt(job: Job, to: str | Path, *, progress: Progress | None = None) -> Adopted:
    """Make the folder that a job describes, whole or not at all.

    One tensor is in memory at a time, and the disk holds one model more. Raises RequestError for a folder
    that is not empty, CheckpointError when the disk refuses and for inputs that do not fit together.
    """
    to = Path(to).expanduser()
    folders.check_free(to)
    job.check()
    tensors, done = job.planned(), 0
    inputs = {what: files for what, files in job.inputs.items() if files}
    nbytes = sum(tensor.nbytes for tensor in tensors)
    total = nbytes + sum(file.stat().st_size for files in inputs.values() for file in files)

    def step(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    with folders.making(to) as made:
        write_planned(made / "model.safetensors", tensors, {"format": "pt"}, written=step)
        write_json(made / "config.json", job.config())
        tokenizer = folders.copy_text(job.tokenizers, made)
        Side.open(made)  # what was written is a model
        hashed = {what: folders.digests(files, step) for what, files in inputs.items()}
        notes = tuple(job.notes())
        origin = _origin(inputs)
        known = {} if origin is None else {"checkpoint": origin}
        folders.record(made, {**known, "made": job.told, "from": hashed, "notes": list(notes)})
    return Adopted(to, nbytes, tokenizer, notes)


def _origin(inputs: Mapping[str, list[Path]]) -> str | None:
    """Return the hub name of what was adopted: of several, the last that is no base."""
    names = [repository(files[-1]) for what, files in inputs.items() if what != "base"]
    return next((name for name in reversed(names) if name is not None), None)


def _difference(
    source: str,
    path: Path,
    known: roster.Checkpoint | None,
    *,
    base: str | None,
    adapters: Sequence[str],
    how: str,
) -> Difference:
    """Put a difference on the base that was given, or on the one that the roster names."""
    if adapters:
        raise RequestError(
            f"{source} is a difference, and no adapter goes on it before it is a model\nTry: first without "
            "--adapter; then adopt the folder that it makes with --adapter"
        )
    arithmetic, wanted = ARITHMETICS[how], (known.base[0] if known and known.base else None)
    if base is None and wanted is None:
        raise RequestError(f"{source} is a difference to {arithmetic.base}\nTry: --base with its folder")
    place = _base(source, base, wanted)
    name = Path(known.id if known else source).name
    job = Difference.of(path, place, name=name, how=how, arithmetic=arithmetic)
    job.combined.wanted = wanted
    return job


def _adapter(path: Path, known: roster.Checkpoint | None, base: str | None, more: Sequence[str]) -> Merging:
    """Put an adapter on its base, with those that the roster says it goes on in between."""
    chain = known.base if known is not None else ()
    between = chain[1:] if base is None else ()
    wanted = chain[0] if chain else read(path).base
    place = _base(str(path), base, wanted)
    return Merging.of(place, [*map(_local, between), path, *map(_local, more)])


def _base(source: str, base: str | None, wanted: str | None) -> Path:
    """Return the base that was given, or the one that is named, where it is on this machine."""
    if base is not None:
        return _local(base)
    if wanted is None:
        raise RequestError(f"{source} goes on a base, and does not say which\nTry: --base with its folder")
    try:
        return _local(wanted)
    except HubError as error:
        raise RequestError(
            f"{source} goes on {wanted}, which is not on this machine\n"
            f"Try: --base with its folder, or: bestiary pull {wanted}"
        ) from error


def _local(name: str) -> Path:
    path = Path(name).expanduser()
    return path if path.exists() else hub.resolve(name)


def _published(source: str) -> roster.Checkpoint | None:
    """Return the roster's checkpoint of this name, or of a folder that is called like one."""
    name = Path(source).name.lower()
    every = [one for entry in roster.entries().values() for one in entry.checkpoints]
    whole = next((one for one in every if one.id.lower() == source.lower()), None)
    return whole or next((one for one in every if one.id.rpartition("/")[2].lower() == name), None)
