"""Files damaged at random, in large numbers: each is read to its last byte or refused with the one error.

No crash, no other exception, nothing that takes two seconds, no memory beyond what the file has. `make
nightly` tries a million of each format, and other ones every night.
"""

from __future__ import annotations

import io
import json
import os
import random
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from bestiary.errors import CheckpointError
from bestiary.files import easylm, gguf, jax_arrays, open_checkpoint, safetensors, torchbin
from bestiary.files.entries import Entry
from bestiary.files.rebuild import NAMES
from bestiary.files.source import Source
from tests.unit.files import craft
from tests.unit.files.craft import SECONDS, resident
from tests.unit.files.mutate import mutant
from tests.unit.files.test_easylm import stream
from tests.unit.files.test_gguf import small

Reader = Callable[[Source], tuple[dict[str, Entry], Mapping[str, object]]]
PATH = Path("mutant")
MANY, NIGHTLY, MEMORY = 20_000, 1_000_000, 64 << 20


def a_safetensors() -> bytes:
    tensors = {
        "layers.0.w": torch.arange(6.0).view(2, 3),
        "b": torch.arange(3),
        "h": torch.ones(2, dtype=torch.bfloat16),
    }
    return save({**tensors, "flag": torch.tensor([True, False]), "none": torch.empty(0, 2)}, {"format": "pt"})


def a_bin(*, new: bool) -> bytes:
    base = torch.arange(12.0)
    tensors = {"w": base.view(3, 4).t(), "v": torch.arange(3), "h": torch.ones(2).half()}
    buffer = io.BytesIO()
    torch.save({"model": tensors, "step": 3}, buffer, _use_new_zipfile_serialization=new)
    return buffer.getvalue()


def a_handmade_bin(*, new: bool) -> bytes:
    """Far smaller than what torch writes, so that more of the damage hits what matters."""
    view = craft.tensor(craft.storage("0", 6), [2, 3], [1, 2])
    pickle = craft.pickled(
        craft.state_dict({"w": view, "v": craft.tensor(craft.storage("1", 2, "HalfStorage"), [2], [1])})
    )
    floats, halves = struct.pack("<6f", *range(6)), bytes(4)
    if new:
        return craft.saved(pickle, {"0": floats, "1": halves}, wide=True)
    return craft.legacy(pickle, {"0": (6, floats), "1": (2, halves)})


def an_array() -> bytes:
    return craft.pickled(craft.array("f4", [2, 3], struct.pack("<6f", *range(6))), 4)


def a_quantised_array() -> bytes:
    scales = craft.array("bfloat16", [2, 3], bytes(12))
    return craft.pickled(craft.quantised(craft.array("i1", [4, 3], bytes(range(12))), scales), 4)


def a_stream() -> bytes:
    return stream({"h/0/w": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)})


def read_array(source: Source) -> tuple[dict[str, Entry], Mapping[str, object]]:
    return {"w": jax_arrays.entry(source)}, {}


SEEDS: dict[str, tuple[Reader, list[bytes]]] = {
    "safetensors": (safetensors.read, [a_safetensors()]),
    "bin, zip": (torchbin.read, [a_bin(new=True), *[a_handmade_bin(new=True)] * 3]),
    "bin, legacy": (torchbin.read, [a_bin(new=False), *[a_handmade_bin(new=False)] * 3]),
    "easylm": (easylm.read, [a_stream()]),
    "jax": (read_array, [an_array(), a_quantised_array()]),
    "gguf 1": (gguf.read, [small(1).build()]),
    "gguf 2": (gguf.read, [small(2).build()]),
    "gguf 3": (gguf.read, [small(3).build()]),
}


def touch(entries: Mapping[str, Entry], metadata: Mapping[str, object]) -> None:
    """Look at every byte that an open file offers."""
    for entry in entries.values():
        tensor = entry.read()
        if tensor.shape != entry.shape and tensor.dtype != torch.uint8:
            raise AssertionError(f"{entry} reads as {tensor.shape}")
        tensor.contiguous().view(-1).view(torch.uint8).sum().item()
    for value in metadata.values():
        if isinstance(value, gguf.Array):
            list(value)


@contextmanager
def bounded(outcomes: Counter[str], count: int) -> Iterator[Callable[[float, bytearray], None]]:
    """Watch time and memory, and that there were as many refusals as asked for, and some files still read."""
    before = resident()

    def judge(took: float, content: bytearray) -> None:
        if took > SECONDS:
            pytest.fail(f"took {took:.1f} s: {content.hex()}")

    yield judge
    assert outcomes["refused"] == count
    assert outcomes["read"] > count // 500
    assert resident() - before < MEMORY


def try_all(kind: str, count: int, seed: int) -> Counter[str]:
    reader, wholes = SEEDS[kind]
    rng = random.Random(seed)
    outcomes: Counter[str] = Counter()
    reasons = set()
    with bounded(outcomes, count) as judge:
        while outcomes["refused"] < count:
            content = mutant(rng, wholes[outcomes.total() % len(wholes)])
            began = time.process_time()
            try:
                touch(*reader(Source(PATH, memoryview(content))))
            except CheckpointError as error:
                outcomes["refused"] += 1
                reasons.add(error.reason[:20])
                if error.file != PATH or type(error) is not CheckpointError or len(str(error)) > 2000:
                    pytest.fail(f"{error!r} for {content.hex()}")
            except BaseException as error:
                raise AssertionError(f"{kind}: {error!r} for {content.hex()}") from error
            else:
                outcomes["read"] += 1
            judge(time.process_time() - began, content)
    assert len(reasons) >= 12, "the damage went to many places"
    return outcomes


@pytest.mark.parametrize("kind", SEEDS)
def test_the_undamaged_files_are_read(kind: str) -> None:
    reader, wholes = SEEDS[kind]
    for whole in wholes:
        entries, metadata = reader(Source(PATH, memoryview(bytearray(whole))))
        touch(entries, metadata)
        assert len(entries) >= 2 - (kind == "jax")


@pytest.mark.parametrize("kind", SEEDS)
def test_damaged_files(kind: str) -> None:
    try_all(kind, MANY, seed=2)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", SEEDS)
def test_many_more_damaged_files(kind: str) -> None:
    try_all(kind, NIGHTLY, seed=int(time.time()))


# Pickles that are well formed and say anything.

_WORDS = [
    *(bytes([code]) for code in b"(t)]}aesuRbQ01N\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x93\x94"),
    *(b"q\0", b"q\1", b"h\0", b"h\1", b"C\1a", b"G" + bytes(8)),
]


def a_view(rng: random.Random) -> bytes:
    dims = rng.randrange(4)
    kind = rng.choice(("FloatStorage", "HalfStorage", "BoolStorage", "UntypedStorage"))
    stored = craft.storage(rng.choice("012"), rng.choice((0, 1, 6, 6, 6, 7)), kind)
    shape, stride = (rng.choices((0, 1, 1, 2, 3, 6), k=dims) for _ in range(2))
    return craft.tensor(stored, shape, stride, rng.choice((0, 0, 0, 1, 5, 6, 7)))


def a_phrase(rng: random.Random) -> bytes:
    kind = rng.randrange(9)
    if kind == 0:
        return a_view(rng)
    if kind == 1:
        module, _, attribute = rng.choice([*NAMES]).rpartition(".")
        return craft.name(module, attribute)
    if kind == 2:
        return craft.text(rng.choice(("w", "model", "storage", "0", "cpu")))
    if kind == 3:
        return craft.number(rng.choice((0, 1, 6, -1, 2**31, 2**63, 2**100)))
    return rng.choice(_WORDS)


def a_speech(rng: random.Random) -> bytearray:
    words = b"".join(a_phrase(rng) for _ in range(rng.randrange(1, 8)))
    views = {f"w{i}": a_view(rng) for i in range(rng.randrange(3))}
    inner = craft.state_dict(views)
    pickle = craft.pickled(
        rng.choice((words, inner, craft.state_dict({**views, "x": words}), words + b"0" + inner))
    )
    keys = "012"[: rng.randrange(4)]
    if rng.random() < 0.6:
        return bytearray(craft.saved(pickle, {key: bytes(24) for key in keys}))
    return bytearray(craft.legacy(pickle, {key: (6, bytes(24)) for key in keys}))


def test_pickles_that_say_anything() -> None:
    rng = random.Random(2)
    outcomes: Counter[str] = Counter()
    with bounded(outcomes, MANY) as judge:
        while outcomes["refused"] < MANY:
            content = a_speech(rng)
            began = time.process_time()
            try:
                touch(*torchbin.read(Source(PATH, memoryview(content))))
                outcomes["read"] += 1
            except CheckpointError:
                outcomes["refused"] += 1
            judge(time.process_time() - began, content)


# Indexes need a folder.


def a_sharded_model(folder: Path) -> bytes:
    for name in "ab":
        (folder / f"{name}.safetensors").write_bytes(save({f"{name}.{i}": torch.ones(2) for i in range(2)}))
    (folder / "outside").mkdir()
    weight_map = {f"{name}.{i}": f"{name}.safetensors" for name in "ab" for i in range(2)}
    return json.dumps({"metadata": {"total_size": 32}, "weight_map": weight_map}, indent=1).encode()


def try_indexes(folder: Path, count: int, seed: int) -> Counter[str]:
    whole = a_sharded_model(folder)
    rng = random.Random(seed)
    outcomes: Counter[str] = Counter()
    index = folder / "model.safetensors.index.json"
    descriptor = os.open(index, os.O_RDWR | os.O_CREAT)
    with bounded(outcomes, count) as judge:
        while outcomes["refused"] < count:
            content = mutant(rng, whole)
            os.pwrite(descriptor, content, 0)
            os.ftruncate(descriptor, len(content))
            began = time.process_time()
            try:
                checkpoint = open_checkpoint(index)
                touch(checkpoint.entries, checkpoint.metadata)
            except CheckpointError as error:
                outcomes["refused"] += 1
                if type(error) is not CheckpointError or not Path(str(error.file)).is_relative_to(folder):
                    pytest.fail(f"{error!r} for {bytes(content)!r}")
            except BaseException as error:
                raise AssertionError(f"{error!r} for {bytes(content)!r}") from error
            else:
                outcomes["read"] += 1
                if [*checkpoint.entries] != ["a.0", "a.1", "b.0", "b.1"]:
                    pytest.fail(f"{[*checkpoint.entries]} for {bytes(content)!r}")
            judge(time.process_time() - began, content)
    os.close(descriptor)
    return outcomes


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: many thousands of files are written."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path
        return
    place = shared / f"bestiary-{os.getpid()}"
    place.mkdir()
    yield place
    for path in sorted(place.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    place.rmdir()


def test_damaged_indexes(folder: Path) -> None:
    try_indexes(folder, MANY, seed=2)


@pytest.mark.nightly
def test_many_more_damaged_indexes(folder: Path) -> None:
    try_indexes(folder, NIGHTLY, seed=int(time.time()))
