"""`torch.save` files: the zip form (since 1.6) and the one before it, read without unpickling anything.

Layouts: torch/serialization.py, `_save` and `_legacy_save`. A tensor is a view (offset, sizes, strides) of a
storage, which is a run of bytes in the file. Every view is checked against its storage, and all views
together against the bytes that are there, so that no file stands for more memory than it has bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from . import archive, pickles
from .entries import Entry
from .paths import check_tensor_name
from .pickles import BuildError
from .rebuild import NAMES, Storage, View, storage
from .source import DTYPES, Source, element_count

MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_NESTED = ("state_dict", "model_state_dict", "model", "module")


@dataclass(frozen=True)
class _Run:
    """Where a storage's bytes lie in the file."""

    offset: int
    nbytes: int


def read(source: Source) -> tuple[dict[str, Entry], dict[str, object]]:
    """Return the tensors of a torch.save file, and the plain values beside them. Raises CheckpointError."""
    value, runs = _read_archive(source) if archive.is_archive(source) else _read_legacy(source)
    views, beside = _choose(value)
    if not views:
        raise source.error("holds no tensors by name", remedy="Name the file with the model's state dict")
    entries = {name: _entry(source, name, view, runs) for name, view in views.items()}
    _check_total(source, views, runs)
    return entries, beside


# The zip form.


def _read_archive(source: Source) -> tuple[object, dict[str, _Run]]:
    found = archive.members(source)
    if "constants.pkl" in found or any(name.startswith("code/") for name in found):
        raise source.error("is TorchScript, which is a program", remedy=pickles.REMEDY)
    if "data.pkl" not in found:
        raise source.error("the archive has no data.pkl: torch.save did not write it", remedy=pickles.REMEDY)
    if (order := found.get("byteorder")) is not None and archive.content(
        source, order
    ).tobytes() != b"little":
        raise source.error("holds big-endian numbers", offset=order.offset, remedy=pickles.REMEDY)
    pickle = found["data.pkl"]
    if pickle.nbytes <= pickles.MOST_BYTES:
        archive.content(source, pickle)  # its checksum: a changed offset would be a wrong weight
    end = pickle.offset + pickle.nbytes
    value, stop = pickles.load(source, pickle.offset, end, names=NAMES, persistent=storage)
    if stop != end:
        raise source.error("bytes follow the end of the pickle", offset=stop)
    runs = {
        name[5:]: _Run(member.offset, member.nbytes)
        for name, member in found.items()
        if name.startswith("data/")
    }
    return value, runs


# The form before 1.6: five pickles, then each storage as an element count and its bytes.


def _read_legacy(source: Source) -> tuple[object, dict[str, _Run]]:
    at = 0
    declared: dict[str, Storage] = {}
    if bytes(source.data[:1]) != b"\x80":
        tar = bytes(source.data[257:262]) == b"ustar"
        what = "is a tar archive, as torch.save wrote before 0.1.10" if tar else "is no file of torch.save"
        raise source.error(what, offset=0, remedy=pickles.REMEDY)
    for what, wanted in (("magic number", MAGIC), ("protocol version", _PROTOCOL)):
        number, at = pickles.load(source, at, source.size, names={})
        if number != wanted or type(number) is not int:
            raise source.error(f"is no file of torch.save: its {what} is wrong", offset=at)
    system, at = pickles.load(source, at, source.size, names={})
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise source.error("holds big-endian numbers, or does not say", offset=at, remedy=pickles.REMEDY)
    persistent = partial(_declare, declared)
    value, at = pickles.load(source, at, source.size, names=NAMES, persistent=persistent)
    keys, at = pickles.load(source, at, source.size, names={})
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise source.error("the list of storages is no list of names", offset=at)
    if len(set(keys)) != len(keys) or set(keys) != declared.keys():
        raise source.error("the list of storages is not the list of those that the tensors use", offset=at)
    return value, _runs(source, at, [declared[key] for key in keys])


def _runs(source: Source, at: int, storages: list[Storage]) -> dict[str, _Run]:
    found: dict[str, _Run] = {}
    for declared in storages:
        count = int.from_bytes(source.data[at : at + 8], "little", signed=True)
        if count * DTYPES[declared.dtype].itemsize != declared.nbytes:
            reason = (
                f"storage {declared.key[:40]!r} has {count:,} elements of {declared.dtype} in the file, and "
            )
            raise source.error(f"{reason}{declared.nbytes:,} bytes where it is used", offset=at)
        if source.size - at - 8 < declared.nbytes:
            raise source.error(
                f"storage {declared.key[:40]!r} of {declared.nbytes:,} bytes is cut", offset=at
            )
        found[declared.key] = _Run(at + 8, declared.nbytes)
        at += 8 + declared.nbytes
    if at != source.size:
        raise source.error("bytes follow the last storage", offset=at)
    return found


def _declare(declared: dict[str, Storage], value: object) -> Storage:
    """Make a Storage and remember it under its key, under which it must always be the same."""
    made = storage(value)
    first = declared.setdefault(made.key, made)
    if (first.dtype, first.nbytes) != (made.dtype, made.nbytes):
        raise BuildError(f"storage {made.key[:40]!r} is declared twice, and differently")
    return made


# From values to entries.


def _choose(value: object) -> tuple[dict[str, View], dict[str, object]]:
    """Return the tensors by name, of the dict itself or of one in it, and the plain values beside them."""
    top = value if isinstance(value, dict) else {}
    for place in (*(top.get(name) for name in _NESTED), top):
        views = {name: view for name, view in _items(place) if isinstance(view, View)}
        if views:
            seen: dict[int, bool] = {}
            return views, {name: inner for name, inner in _items(top) if _is_plain(inner, seen)}
    return {}, {}


def _items(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        yield from ((key, inner) for key, inner in value.items() if isinstance(key, str))


def _is_plain(value: object, seen: dict[int, bool], depth: int = 8) -> bool:
    """Tell whether a value is a number, a text, None, or made of these in containers: what a reader can
    use.
    """
    if not isinstance(value, list | tuple | dict):
        return value is None or isinstance(value, str | int | float)
    if depth and id(value) not in seen:  # each container once: one may stand in a million places
        seen[id(value)] = False
        inner = value.values() if isinstance(value, dict) else value
        seen[id(value)] = all(_is_plain(each, seen, depth - 1) for each in inner)
    return depth > 0 and seen[id(value)]


def _entry(source: Source, name: str, view: View, runs: Mapping[str, _Run]) -> Entry:
    check_tensor_name(name, file=source.path)
    run = runs.get(view.storage.key)
    if run is None or view.storage.nbytes > run.nbytes:
        have = 0 if run is None else run.nbytes
        reason = f"its storage {view.storage.key[:40]!r} has {have:,} of {view.storage.nbytes:,} bytes"
        raise source.error(reason, tensor=name, offset=None if run is None else run.offset)
    size = DTYPES[view.dtype].itemsize
    numel = element_count(view.shape)
    offset = run.offset + (view.offset * size if numel else 0)
    if fault := _fault(view, numel, view.storage.nbytes // size):
        raise source.error(f"sizes {view.shape[:16]} and strides {view.stride[:16]}: {fault}", tensor=name)
    dense = _row_major(view.shape)
    # The stride of a dimension of one element is any number, and means nothing.
    stride = tuple(d if n == 1 else s for n, s, d in zip(view.shape, view.stride, dense, strict=True))
    load = partial(source.tensor, DTYPES[view.dtype], view.shape, offset, None if stride == dense else stride)
    return Entry(name, view.shape, view.dtype, source.path, offset, (numel or 0) * size, load)


def _fault(view: View, numel: int | None, room: int) -> str | None:
    """Return what is wrong with a view of a storage that has room for `room` elements."""
    if min((view.offset, *view.shape, *view.stride)) < 0:
        return "a size, stride or offset is negative"
    if numel is None:
        return "they are past what memory can address"
    if numel == 0:
        return None  # wherever it begins: a slice of nothing can begin past its end
    dims = sorted((step, n) for n, step in zip(view.shape, view.stride, strict=True) if n > 1)
    span = 1
    for step, n in dims:
        # Elements that share bytes let a small file stand for a huge tensor: stride 0 is the plainest case.
        if step < span:
            return "elements lie on top of each other"
        span += (n - 1) * step
    if view.offset + span > room:
        return f"they need {view.offset + span:,} elements, and there are {room:,}"
    return None


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(max(n, 1) for n in shape[i + 1 :]) for i in range(len(shape)))


def _check_total(source: Source, views: Mapping[str, View], runs: Mapping[str, _Run]) -> None:
    """Refuse a file whose tensors, were each given memory of its own, would take more bytes than their
    storages.

    The same view under two names is one tensor that is tied, and counts once.
    """
    distinct = {(v.storage.key, v.dtype, v.offset, v.shape, v.stride): v for v in views.values()}
    wanted = sum(math.prod(v.shape) * DTYPES[v.dtype].itemsize for v in distinct.values())
    present = sum(runs[key].nbytes for key in {v.storage.key for v in views.values()})
    if wanted > present:
        reason = f"its tensors overlap: they take {wanted:,} bytes and their storages have {present:,}"
        raise source.error(reason, remedy=pickles.REMEDY)
