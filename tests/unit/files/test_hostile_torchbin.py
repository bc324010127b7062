"""torch.save files that lie: about their layout, or about how much memory their tensors take."""

from __future__ import annotations

import itertools
import struct
import zipfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bestiary.errors import CheckpointError
from bestiary.files import open_checkpoint, torchbin
from bestiary.files.source import Source
from tests.unit.files import craft
from tests.unit.files.craft import (
    legacy,
    number,
    pickled,
    refused,
    saved,
    state_dict,
    storage,
    text,
)
from tests.unit.files.test_torchbin import FLOATS, FORMS, PICKLE

# Bombs.


@pytest.mark.optimised
def test_a_deflated_member_is_refused(tmp_path: Path) -> None:
    """2.34 MB that unpack to 512 MiB: torch 2.13 loads this (here at a size that tests can make)."""
    torch.save({"w": torch.zeros(1 << 20)}, tmp_path / "plain.bin")
    bomb = tmp_path / "bomb.bin"
    with (
        zipfile.ZipFile(tmp_path / "plain.bin") as plain,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as out,
    ):
        for info in plain.infolist():
            out.writestr(info.filename, plain.read(info))
    assert bomb.stat().st_size < 10_000
    assert torch.load(bomb, weights_only=True)["w"].numel() == 1 << 20
    refused(bomb, saying="compressed")


@pytest.mark.optimised
def test_a_stride_of_zero_is_refused(tmp_path: Path) -> None:
    """1,556 bytes that stand for 4 TB: torch 2.13 loads this."""
    path = tmp_path / "x.bin"
    torch.save({"w": torch.zeros(1).expand(1_000_000, 1_000_000)}, path)
    assert torch.load(path, weights_only=True)["w"].shape == (1_000_000, 1_000_000)
    assert "on top of each other" in str(refused(path))
    torch.save({"w": torch.zeros(1).expand(1_000_000, 1_000_000)}, path, _use_new_zipfile_serialization=False)
    refused(path, saying="on top of each other")


@pytest.mark.optimised
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.sparse_coo_tensor(
            torch.tensor([[1_000_000]]), torch.ones(1), (4,), check_invariants=False
        ),
        lambda: torch.eye(3).to_sparse_csr(),
        lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        lambda: torch.empty(1_000_000, 1_000_000, device="meta"),
        lambda: torch.complex(torch.ones(3), torch.ones(3)).conj(),
    ],
    ids=["sparse out of range", "csr", "quantised", "meta", "conjugated"],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_other_layouts_are_refused(tmp_path: Path, make: Callable[[], torch.Tensor]) -> None:
    for form in FORMS.values():
        torch.save({"w": make()}, tmp_path / "x.bin", _use_new_zipfile_serialization=form)
        refused(tmp_path / "x.bin")


VIEWS: dict[str, bytes] = {
    "stride 0": craft.tensor(storage("0", 12), [2], [0]),
    "stride 0 in the middle": craft.tensor(storage("0", 12), [2, 2, 2], [6, 0, 1]),
    "all elements on each other": craft.tensor(storage("0", 12), [6, 6], [1, 1]),
    "rows overlap": craft.tensor(storage("0", 12), [3, 4], [3, 1]),
    "columns overlap": craft.tensor(storage("0", 12), [4, 3], [1, 3]),
    "negative stride": craft.tensor(storage("0", 12), [2], [-1], 5),
    "negative size": craft.tensor(storage("0", 12), [-2], [1]),
    "negative offset": craft.tensor(storage("0", 12), [2], [1], -1),
    "past the end": craft.tensor(storage("0", 12), [13], [1]),
    "past the end by offset": craft.tensor(storage("0", 12), [2], [1], 11),
    "past the end by stride": craft.tensor(storage("0", 12), [3], [6]),
    "offset far away": craft.tensor(storage("0", 12), [1], [1], 2**62),
    "offset past 64 bits": craft.tensor(storage("0", 12), [1], [1], 2**70),
    "stride past 64 bits": craft.tensor(storage("0", 12), [2], [2**70]),
    "stride wraps": craft.tensor(storage("0", 12), [3], [2**63]),
    "size past 64 bits": craft.tensor(storage("0", 12), [2**70], [1]),
    "sizes wrap": craft.tensor(storage("0", 12), [2**32, 2**32], [2**32, 1]),
    "empty, sizes overflow": craft.tensor(storage("0", 12), [0, 2**62, 2**62], [1, 1, 1]),
    "more strides than sizes": craft.tensor(storage("0", 12), [2], [1, 1]),
    "fewer strides than sizes": craft.tensor(storage("0", 12), [2, 2], [1]),
    "seventeen dimensions": craft.tensor(storage("0", 12), [1] * 17, [1] * 17),
    "size is a float": craft.name("torch._utils", "_rebuild_tensor_v2")
    + b"("
    + storage("0", 12)
    + number(0)
    + b"(G"
    + struct.pack(">d", 2)
    + b"t("
    + number(1)
    + b"t\x89NtR",
    "size is true": craft.name("torch._utils", "_rebuild_tensor_v2")
    + b"("
    + storage("0", 12)
    + number(0)
    + b"(\x88t("
    + number(1)
    + b"t\x89NtR",
    "storage larger than its bytes": craft.tensor(storage("0", 13), [2], [1]),
    "storage of doubles": craft.tensor(storage("0", 12, "DoubleStorage"), [2], [1]),
    "storage past 64 bits": craft.tensor(storage("0", 2**70), [2], [1]),
    "no such storage": craft.tensor(storage("1", 12), [2], [1]),
    "storage by path": craft.tensor(storage("../data.pkl", 1), [1], [1]),
    "unknown storage": craft.tensor(storage("0", 12, "QInt8Storage"), [2], [1]),
}


@pytest.mark.optimised
@pytest.mark.parametrize("kind", VIEWS)
def test_views_outside_their_storage_are_refused(tmp_path: Path, kind: str) -> None:
    pickle = pickled(state_dict({"w": VIEWS[kind]}))
    refused(tmp_path / "x.bin", saved(pickle, {"0": FLOATS}))
    refused(tmp_path / "x.bin", legacy(pickle, {"0": (12, FLOATS)}))


@given(
    st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 12)), max_size=4),
    st.integers(-1, 12),
    st.booleans(),
)
def test_any_view_is_refused_or_is_what_it_says(dims: list[tuple[int, int]], offset: int, new: bool) -> None:
    """Beside all its positions counted out: a view that is read has each of them once, and inside."""
    shape, stride = [n for n, _ in dims], [step for _, step in dims]
    pickle = pickled(state_dict({"w": craft.tensor(storage("0", 12), shape, stride, offset)}))
    content = saved(pickle, {"0": FLOATS}) if new else legacy(pickle, {"0": (12, FLOATS)})
    places = [
        offset + sum(i * step for i, step in zip(index, stride, strict=True))
        for index in itertools.product(*(range(n) for n in shape))
    ]
    try:
        entries, _ = torchbin.read(Source(Path("x.bin"), memoryview(bytearray(content))))
    except CheckpointError:
        # What slicing and turning make is never refused: strides that fit into each other, all inside.
        spans = sorted((step, n) for n, step in dims if n > 1)
        nested = all(a[0] * a[1] <= b[0] for a, b in itertools.pairwise(spans)) and (
            not spans or spans[0][0] > 0
        )
        inside = bool(places) and min(places) >= 0 and max(places) < 12
        assert not (nested and inside and min([offset, *shape, *stride]) >= 0)
        return
    assert len(set(places)) == len(places)
    assert entries["w"].read().flatten().tolist() == [float(place) for place in places]


@pytest.mark.optimised
def test_tensors_that_overlap_each_other_are_refused(tmp_path: Path) -> None:
    """A million tensors, each the whole of one storage, would take a million times the file."""
    whole = {f"w{i}": craft.tensor(storage("0", 12), [12], [1]) for i in range(2)}
    shifted = {f"w{i}": craft.tensor(storage("0", 12), [12 - i], [1], i) for i in range(9)}
    (tmp_path / "x.bin").write_bytes(saved(pickled(state_dict(whole)), {"0": FLOATS}))
    assert len(open_checkpoint(tmp_path / "x.bin").entries) == 2, "the same tensor twice is tied"
    refused(tmp_path / "x.bin", saved(pickled(state_dict(shifted)), {"0": FLOATS}), saying="overlap")


# The form before 1.6.

RUNS = {"0": (12, FLOATS)}
LEGACIES: dict[str, bytes] = {
    "another magic": legacy(PICKLE, RUNS, magic=pickled(number(0x1950A86A20F9469CFC6D))),
    "magic is text": legacy(PICKLE, RUNS, magic=pickled(text("magic"))),
    "magic is true": legacy(PICKLE, RUNS, magic=pickled(b"\x88")),
    "another version": legacy(PICKLE, RUNS, version=pickled(number(1002))),
    "big-endian": legacy(PICKLE, RUNS, system=pickled(b"}(" + text("little_endian") + b"\x89u")),
    "byte order unknown": legacy(PICKLE, RUNS, system=pickled(b"}")),
    "system is a list": legacy(PICKLE, RUNS, system=pickled(b"]")),
    "keys are numbers": legacy(PICKLE, RUNS, keys=pickled(b"](" + number(0) + b"e")),
    "keys are a tuple": legacy(PICKLE, RUNS, keys=pickled(b"(" + text("0") + b"t")),
    "keys twice": legacy(PICKLE, RUNS, keys=pickled(b"](" + text("0") * 2 + b"e")),
    "keys missing": legacy(PICKLE, RUNS, keys=pickled(b"]")),
    "keys too many": legacy(PICKLE, {**RUNS, "1": (1, bytes(4))}),
    "fewer elements": legacy(PICKLE, {"0": (11, FLOATS[:44])}),
    "more elements": legacy(PICKLE, {"0": (13, FLOATS + bytes(4))}),
    "negative elements": legacy(PICKLE, {"0": (-12, FLOATS)}),
    "2^62 elements": legacy(PICKLE, {"0": (2**62, FLOATS)}),
    "bytes after": legacy(PICKLE, RUNS) + b"\0",
    "bytes missing": legacy(PICKLE, RUNS)[:-1],
    "storage declared twice": legacy(
        pickled(
            state_dict(
                {
                    "w": craft.tensor(storage("0", 12), [2], [1]),
                    "v": craft.tensor(storage("0", 11), [2], [1], 4),
                }
            )
        ),
        RUNS,
    ),
    "nothing": b"",
    "a tensor without a name": legacy(pickled(craft.tensor(storage("0", 12), [12], [1])), RUNS),
    "a list of tensors": legacy(pickled(b"](" + craft.tensor(storage("0", 12), [12], [1]) + b"e"), RUNS),
    "names are numbers": legacy(
        pickled(b"}" + number(1) + craft.tensor(storage("0", 12), [12], [1]) + b"s"), RUNS
    ),
    "no tensors": legacy(pickled(b"}")),
    "two levels down": legacy(
        pickled(
            state_dict(
                {"model": state_dict({"model": state_dict({"w": craft.tensor(storage("0", 12), [12], [1])})})}
            )
        ),
        RUNS,
    ),
    "name with escape": legacy(
        pickled(state_dict({"a\x1b": craft.tensor(storage("0", 12), [12], [1])})), RUNS
    ),
    "name leaves folder": legacy(
        pickled(state_dict({"../a": craft.tensor(storage("0", 12), [12], [1])})), RUNS
    ),
    "name half a surrogate": legacy(
        pickled(state_dict({"\ud800": craft.tensor(storage("0", 12), [12], [1])})), RUNS
    ),
    "GGUF": b"GGUF" + bytes(60),
    "safetensors": craft.safetensors({}),
    "a pickle of a dict": pickled(b"}"),
}


@pytest.mark.optimised
@pytest.mark.parametrize("kind", LEGACIES)
def test_bad_legacy_files_are_refused(tmp_path: Path, kind: str) -> None:
    refused(tmp_path / "pytorch_model.bin", LEGACIES[kind])


def test_the_error_names_the_tensor_and_the_numbers(tmp_path: Path) -> None:
    error = refused(
        tmp_path / "x.bin", saved(pickled(state_dict({"w": VIEWS["past the end"]})), {"0": FLOATS})
    )
    assert error.tensor == "w"
    assert "need 13 elements, and there are 12" in str(error)


def test_unknown_types_are_named_and_not_guessed(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1), "share": Fraction(1, 3)}, tmp_path / "x.bin")
    refused(tmp_path / "x.bin", saying="'fractions.Fraction'")
