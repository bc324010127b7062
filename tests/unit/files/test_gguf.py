"""GGUF: equal to gguf-py on good files; every kind of llama.cpp's own malformed files refused, and more."""

from __future__ import annotations

import os
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bestiary.errors import CheckpointError
from bestiary.files import Checkpoint, open_checkpoint
from bestiary.files.gguf import TYPES, Array
from bestiary.formats import FORMATS
from tests.goldens import cases, meta
from tests.unit.files.craft import Gguf, GgufTensor, read_all, refused

PLAIN = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I8": 1, "I16": 2, "I32": 4, "I64": 8}
NUMBERS = {name: number for number, name in TYPES.items()}
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def small(version: int = 3, alignment: int = 32) -> Gguf:
    """A good file with every kind of value and three tensors."""
    file = Gguf(version=version, alignment=alignment)
    file.metadata = [
        (b"general.architecture", STRING, file.string("llama")),
        (b"a.u8", U8, b"\xff"),
        (b"a.i8", I8, b"\xff"),
        (b"a.u16", U16, b"\xff\xff"),
        (b"a.i16", I16, b"\xfe\xff"),
        (b"a.u32", U32, u32(2**32 - 1)),
        (b"a.i32", I32, u32(2**32 - 1)),
        (b"a.f32", F32, struct.pack("<f", 0.5)),
        (b"a.yes", BOOL, b"\1"),
        (b"a.no", BOOL, b"\0"),
        (b"a.u64", U64, struct.pack("<Q", 2**64 - 1)),
        (b"a.i64", I64, struct.pack("<q", -1)),
        (b"a.f64", F64, struct.pack("<d", 1e300)),
        (b"a.texts", ARRAY, file.array(STRING, [file.string("é"), file.string(""), file.string("z")])),
        (b"a.numbers", ARRAY, file.array(I16, [b"\1\0", b"\xff\xff"])),
        (b"a.none", ARRAY, file.array(F32, [])),
    ]
    if alignment != 32:
        file.metadata.append((b"general.alignment", U32, u32(alignment)))
    file.tensors = [
        GgufTensor("matrix.weight", (2, 32), NUMBERS["Q8_0"], bytes(range(68))),
        GgufTensor("bias", (3,), NUMBERS["F32"], struct.pack("<3f", 1, 2, 3)),
        GgufTensor("cube", (2, 1, 3), NUMBERS["F16"], bytes(12)),
    ]
    return file


def write(path: Path, file: Gguf) -> Path:
    path.write_bytes(file.build())
    return path


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("alignment", [1, 8, 32, 64])
def test_versions_and_alignments(tmp_path: Path, version: int, alignment: int) -> None:
    checkpoint = open_checkpoint(write(tmp_path / "x.gguf", small(version, alignment)))
    assert checkpoint.kind == "gguf"
    assert dict(checkpoint.metadata) == {
        "general.architecture": "llama",
        "a.u8": 255,
        "a.i8": -1,
        "a.u16": 65535,
        "a.i16": -2,
        "a.u32": 2**32 - 1,
        "a.i32": -1,
        "a.f32": 0.5,
        "a.yes": True,
        "a.no": False,
        "a.u64": 2**64 - 1,
        "a.i64": -1,
        "a.f64": 1e300,
        "a.texts": ["é", "", "z"],
        "a.numbers": [1, -1],
        "a.none": [],
        **({} if alignment == 32 else {"general.alignment": alignment}),
    }
    matrix, bias, cube = checkpoint.entries.values()
    assert (matrix.name, matrix.shape, matrix.dtype, matrix.nbytes) == ("matrix.weight", (2, 32), "Q8_0", 68)
    assert matrix.read().tolist() == [[*range(34)], [*range(34, 68)]]
    assert bias.read().tolist() == [1, 2, 3]
    assert (cube.shape, cube.read().shape, cube.read().dtype) == ((2, 1, 3), (2, 1, 3), torch.float16)
    assert checkpoint.nbytes == 68 + 12 + 12


# Beside gguf-py.


def assert_reads_as_gguf_py(checkpoint: Checkpoint, path: Path) -> None:
    theirs = gguf.GGUFReader(path)
    assert [*checkpoint.entries] == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        entry = checkpoint.entries[tensor.name]
        assert entry.shape == tuple(int(n) for n in reversed(tensor.shape))
        assert (entry.dtype, entry.offset) == (tensor.tensor_type.name, tensor.data_offset)
        assert entry.nbytes == tensor.n_bytes
        assert entry.read().view(-1).view(torch.uint8).numpy().tobytes() == tensor.data.tobytes()
    fields = {name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert {k: [*v] if isinstance(v, Array) else v for k, v in checkpoint.metadata.items()} == fields


@pytest.mark.parametrize("kind", [*PLAIN, *(name for name in FORMATS if name not in PLAIN)])
def test_every_type_as_gguf_py_writes_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_token_list(["<s>", "▁a", "\u0120b", "🙂"] * 100)
    writer.add_token_scores([-0.5, 0.0, 1.5, 2.0] * 100)
    writer.add_array("x.flags", [True, False] * 200)
    writer.add_bool("x.flag", True)
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    random = np.random.default_rng(0)
    for name, rows in (("a", 3), ("b", 5)):
        raw = random.integers(0, 256, (rows, 512 // block * size), dtype=np.uint8)
        plain = {
            "F32": np.float32,
            "F16": np.float16,
            "F64": np.float64,
            "I8": np.int8,
            "I16": np.int16,
            "I32": np.int32,
            "I64": np.int64,
        }.get(kind)
        if plain is not None:
            writer.add_tensor(name, raw.view(plain))
        else:
            writer.add_tensor(name, raw, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert_reads_as_gguf_py(open_checkpoint(path), path)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["F32", "F16", "I8", "Q4_0", "Q6_K"]),
            st.lists(st.integers(0, 3), min_size=1, max_size=4),
        ),
        max_size=6,
    ),
    st.sampled_from([1, 2, 3]),
    st.dictionaries(
        st.text(st.characters(codec="utf-8", categories=("L", "N")), min_size=1),
        st.text() | st.integers(0, 2**64 - 1),
    ),
)
def test_any_file_reads_as_it_was_built(
    spec: list[tuple[str, list[int]]], version: int, keys: dict[str, Any]
) -> None:
    file = Gguf(version=version)
    for key, value in keys.items():
        known = (STRING, file.string(value)) if isinstance(value, str) else (U64, struct.pack("<Q", value))
        file.metadata.append((key.encode(), *known))
    want = {}
    for at, (kind, sizes) in enumerate(spec):
        block, size = (1, PLAIN[kind]) if kind in PLAIN else (FORMATS[kind].block, FORMATS[kind].nbytes)
        shape = (*sizes[:-1], sizes[-1] * block)
        data = os.urandom(int(np.prod(shape)) // block * size)
        file.tensors.append(GgufTensor(f"t{at}", shape, NUMBERS[kind], data))
        want[f"t{at}"] = (shape, kind, data)
    path = Path("/dev/shm" if Path("/dev/shm").is_dir() else "/tmp") / f"bestiary-{os.getpid()}.gguf"
    try:
        checkpoint = open_checkpoint(write(path, file))
        assert dict(checkpoint.metadata) == keys
        for name, (shape, kind, data) in want.items():
            entry = checkpoint.entries[name]
            assert (entry.shape, entry.dtype) == (shape, kind)
            assert entry.read().contiguous().view(-1).view(torch.uint8).numpy().tobytes() == data
    finally:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("case", cases("format-gguf-llama*"), ids=lambda case: case.name)
def test_reference_models(case: Path) -> None:
    for path in case.glob("*.gguf"):
        assert_reads_as_gguf_py(open_checkpoint(path), path)
    if case.name == "format-gguf-llama":
        counts = meta(case)["gguf"]
        for name, said in counts.items():
            kinds = [entry.dtype for entry in open_checkpoint(case / name).entries.values()]
            assert {kind: kinds.count(kind) for kind in kinds} == said["tensor_types"]


@pytest.mark.parametrize("case", cases("format-gguf-types"), ids=lambda case: case.name)
def test_reference_types_are_read_or_refused_by_name(case: Path) -> None:
    for name, said in meta(case)["types"].items():
        path = case / said["file"]
        if name in PLAIN or name in FORMATS:
            assert_reads_as_gguf_py(open_checkpoint(path), path)
        else:
            refused(path, saying=f"is of type {name}, which is not read here. Re-quantise")


def test_the_default_model(default_model: Path) -> None:
    assert_reads_as_gguf_py(open_checkpoint(default_model), default_model)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_good_kinds_of_llama_cpp(tmp_path: Path, version: int) -> None:
    """HEADER_EMPTY, KV_SUCCESS, TENSORS_SUCCESS and TENSORS_ZERO_DIM."""
    path = tmp_path / "x.gguf"
    assert not open_checkpoint(write(path, Gguf(version=version))).entries
    file = small(version)
    file.tensors = []
    assert len(open_checkpoint(write(path, file)).metadata) == 16
    file = small(version)
    file.tensors[1:1] = [
        GgufTensor("zero", (0, 4), 0, b""),
        GgufTensor("none", (2, 0, 32), NUMBERS["Q4_0"], b""),
    ]
    entries = open_checkpoint(write(path, file)).entries
    assert entries["zero"].read().shape == (0, 4)
    assert entries["none"].read().shape == (2, 0, 18)
    assert entries["bias"].read().tolist() == [1, 2, 3]


def test_padding_after_the_last_tensor_may_be_missing(tmp_path: Path) -> None:
    """Some writers pad between tensors only."""
    (tmp_path / "x.gguf").write_bytes(small().build()[: -(32 - 12)])
    assert open_checkpoint(tmp_path / "x.gguf").entries["cube"].read().shape == (2, 1, 3)


def test_type_numbers_are_those_of_gguf_py() -> None:
    assert {int(kind): kind.name for kind in gguf.GGMLQuantizationType}.items() <= TYPES.items()


# Long arrays.


def vocabulary(tokens: int) -> Gguf:
    file = Gguf()
    file.metadata = [
        (
            b"tokenizer.ggml.tokens",
            ARRAY,
            file.array(STRING, [file.string(f"token{i}") for i in range(tokens)]),
        ),
        (b"tokenizer.ggml.scores", ARRAY, file.array(F32, [struct.pack("<f", i) for i in range(tokens)])),
        (b"after", STRING, file.string("here")),
    ]
    return file


def test_a_vocabulary_is_decoded_only_when_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "x.gguf", vocabulary(250_000))
    tracemalloc.start()
    checkpoint = open_checkpoint(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200_000, "nothing of the 250,000 strings was built"
    assert checkpoint.metadata["after"] == "here"
    tokens, scores = (
        checkpoint.metadata["tokenizer.ggml.tokens"],
        checkpoint.metadata["tokenizer.ggml.scores"],
    )
    assert isinstance(tokens, Array)
    assert isinstance(scores, Array)
    assert len(tokens) == len(scores) == 250_000
    assert (tokens[0], tokens[-1], tokens[7:9]) == ("token0", "token249999", ["token7", "token8"])
    assert "token9" in tokens
    assert list(scores)[5] == 5.0
    assert "250,000" in repr(tokens)


def test_a_vocabulary_that_is_not_utf_8_names_its_place(tmp_path: Path) -> None:
    file = Gguf()
    strings = [file.string("ok")] * 299 + [file.string(b"\xff")]
    file.metadata = [(b"tokens", ARRAY, file.array(STRING, strings))]
    checkpoint = open_checkpoint(write(tmp_path / "x.gguf", file))
    with pytest.raises(CheckpointError, match="string 299 of 'tokens' is not UTF-8") as raised:
        read_all(checkpoint)
    assert raised.value.offset == (tmp_path / "x.gguf").stat().st_size - 1
