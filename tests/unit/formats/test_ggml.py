"""The reference decoders against two independent ones: gguf-py (run here) and ggml (stored results)."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor

from bestiary.errors import CheckpointError
from bestiary.formats import FORMATS, get
from tests.goldens import cases
from tests.packed import HALF_FIELDS

NAMES = list(FORMATS)
# Bit patterns of float16 scales that go wrong first: zeros, the least and largest subnormal, the least
# normal, one, the largest, infinities.
ODD_HALVES = (0x0000, 0x8000, 0x0001, 0x03FF, 0x0400, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00)


def by_gguf(packed: np.ndarray, name: str) -> np.ndarray:
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(packed, gguf.GGMLQuantizationType[name])


def assert_same_bits(got: Tensor, want: np.ndarray) -> None:
    """Equal bit for bit, but any two NaN are equal: the sign of a produced NaN is the machine's choice."""
    ours, theirs = got.numpy(), np.asarray(want)
    assert ours.dtype == theirs.dtype == np.float32
    assert ours.shape == theirs.shape
    same = (ours.view(np.uint32) == theirs.view(np.uint32)) | (np.isnan(ours) & np.isnan(theirs))
    assert same.all(), f"{(~same).sum()} of {same.size} differ"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("rows", "blocks"), [(1, 1), (7, 3), (64, 5)])
def test_random_bytes_decode_as_in_gguf_py(name: str, rows: int, blocks: int) -> None:
    packed = np.random.default_rng(rows).integers(0, 256, (rows, blocks * get(name).nbytes), dtype=np.uint8)
    assert_same_bits(get(name).decode(torch.from_numpy(packed)), by_gguf(packed, name))


@pytest.mark.parametrize("name", NAMES)
def test_odd_scales_decode_as_in_gguf_py(name: str) -> None:
    fmt = get(name)
    packed = np.random.default_rng(3).integers(0, 256, (len(ODD_HALVES) ** 2, fmt.nbytes), dtype=np.uint8)
    for row, (first, second) in enumerate((a, b) for a in ODD_HALVES for b in ODD_HALVES):
        for at, bits in zip(HALF_FIELDS[name], (first, second), strict=False):
            packed[row, at : at + 2] = (bits & 0xFF, bits >> 8)
    assert_same_bits(fmt.decode(torch.from_numpy(packed)), by_gguf(packed, name))


@pytest.mark.parametrize("name", NAMES)
def test_leading_dimensions_strides_and_odd_starts_do_not_matter(name: str) -> None:
    fmt = get(name)
    raw = torch.randint(0, 256, (2 * 3 * 5 * fmt.nbytes + 1,), dtype=torch.uint8)
    packed = raw[1:].view(2, 3, 5 * fmt.nbytes)
    whole = fmt.decode(packed)
    assert whole.shape == (2, 3, 5 * fmt.block)
    torch.testing.assert_close(fmt.decode(packed[:, 1]), whole[:, 1], rtol=0, atol=0, equal_nan=True)
    for row in range(3):
        torch.testing.assert_close(fmt.decode(packed[1, row]), whole[1, row], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", NAMES)
def test_no_rows_and_no_columns(name: str) -> None:
    fmt = get(name)
    assert fmt.decode(torch.empty(0, 2 * fmt.nbytes, dtype=torch.uint8)).shape == (0, 2 * fmt.block)


@pytest.mark.parametrize("name", NAMES)
def test_cut_rows_are_refused(name: str) -> None:
    fmt = get(name)
    with pytest.raises(CheckpointError, match=f"{fmt.nbytes}-byte blocks"):
        fmt.decode(torch.zeros(2, 2 * fmt.nbytes - 1, dtype=torch.uint8))
    with pytest.raises(CheckpointError, match="float32"):
        fmt.decode(torch.zeros(2, fmt.nbytes))


@pytest.mark.parametrize("name", NAMES)
def test_row_bytes_and_columns_are_inverse(name: str) -> None:
    fmt = get(name)
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    assert (fmt.block, fmt.nbytes) == (block, size)
    assert fmt.row_bytes(7 * block) == 7 * size
    assert fmt.columns(7 * size) == 7 * block
    for wrong in (-block, *([7 * block + 1] if block > 1 else [])):
        with pytest.raises(CheckpointError, match=f"{wrong} columns"):
            fmt.row_bytes(wrong)
    with pytest.raises(CheckpointError, match="row of"):
        fmt.columns(7 * size + 1)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"'Q9_Z'.*Q4_K"):
        get("Q9_Z")


@pytest.mark.parametrize("case", cases("format-gguf-types"), ids=lambda case: case.name)
def test_ggml_dequantises_the_same(case) -> None:  # type: ignore[no-untyped-def]
    from safetensors.torch import load_file

    expected = load_file(case / "expected.safetensors")
    seen = set()
    for name, fmt in FORMATS.items():
        reader = gguf.GGUFReader(case / f"{name.lower()}.gguf")
        (tensor,) = reader.tensors
        raw = torch.from_numpy(np.array(tensor.data)).view(torch.uint8)
        assert_same_bits(fmt.decode(raw.view(expected[name].shape[0], -1)), expected[name].numpy())
        seen.add(name)
    assert seen == set(NAMES)
