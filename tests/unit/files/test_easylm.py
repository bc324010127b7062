"""Streams of flax arrays as EasyLM writes them: read whole by msgpack's own packer, refused when damaged."""

from __future__ import annotations

from pathlib import Path

import msgpack
import numpy as np
import pytest
import torch
from torch import Tensor

from bestiary.errors import CheckpointError
from bestiary.files import open_checkpoint

NUMPY = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}


def array(tensor: Tensor, name: str | None = None) -> bytes:
    """Write an array as flax does: shape, type and bytes in an extension of code 1."""
    raw = tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    inner = msgpack.packb((tuple(tensor.shape), name or NUMPY[tensor.dtype], raw), use_bin_type=True)
    return bytes(msgpack.packb(msgpack.ExtType(1, inner)))


def stream(tensors: dict[str, Tensor], *, old: bool = False) -> bytes:
    """Write pairs of a path and an array. old: as msgpack before 1.0 did, with bytes as texts."""
    packer = msgpack.Packer(use_bin_type=not old)
    return b"".join(packer.pack((tuple(name.split("/")), array(t))) for name, t in tensors.items())


TENSORS = {
    "transformer/wte/embedding": torch.randn(9, 4),
    "transformer/h/0/attention/wq/kernel": torch.randn(4, 4).half(),
    "transformer/h/0/ffn_norm/kernel": torch.randn(4).bfloat16(),
    "lm_head/kernel": torch.randn(300, 70),
    "transformer/empty": torch.randn(0, 3),
}


@pytest.mark.parametrize("old", [False, True])
def test_arrays_by_their_paths(tmp_path: Path, old: bool) -> None:
    file = tmp_path / "koala_7b_diff_v2"  # no ending: it is known by how it begins
    file.write_bytes(stream(TENSORS, old=old))
    checkpoint = open_checkpoint(file)
    assert checkpoint.kind == "easylm"
    assert list(checkpoint.entries) == list(TENSORS)
    for name, tensor in TENSORS.items():
        entry = checkpoint.entries[name]
        assert (entry.shape, entry.read().dtype) == (tensor.shape, tensor.dtype)
        assert torch.equal(entry.read(), tensor)
        assert not tensor.numel() or file.read_bytes()[entry.offset :].startswith(raw(tensor))


def raw(tensor: Tensor) -> bytes:
    return bytes(np.ascontiguousarray(tensor.view(torch.uint8)).tobytes())


PATH = ("transformer", "w")
WHOLE = stream({"transformer/w": torch.ones(2, 3)})


def pair(path: object, value: bytes) -> bytes:
    return bytes(msgpack.packb((path, value)))


def inner(*values: object) -> bytes:
    return bytes(msgpack.packb(msgpack.ExtType(1, msgpack.packb(values))))


BAD: list[tuple[bytes, str]] = [
    (WHOLE[:-5], "cut: .* bytes should follow"),
    (WHOLE + b"\xc0", "no list where a list should be"),
    (WHOLE + WHOLE, "'transformer/w'.* is there twice"),
    (WHOLE + pair(("v",), array(torch.ones(2)) + b"\0"), "bytes after its array"),
    (WHOLE + b"\xdd\x7f\xff\xff\xff", "no pair of a path and an array"),
    (WHOLE + b"\x92\xdd\x7f\xff\xff\xff", "list of 2,147,483,647 values where 64 at most"),
    (WHOLE + b"\x92\x91\xdb\x7f\xff\xff\xff", "text of 2,147,483,647 bytes where a short one"),
    (WHOLE + b"\x92\x91\xa1x\xc6\xff\xff\xff\xff", "4,294,967,295 bytes should follow"),
    (WHOLE + pair(("..", "w"), array(torch.ones(2))), "the tensor's name is a path"),
    (WHOLE + pair(("\xe9"), array(torch.ones(2))), "no list where a list should be"),
    (WHOLE + b"\x92\x91\xa1\xff\xc4\x00", "a text that is not UTF-8"),
    (WHOLE + pair(("step",), b"\x07"), "'step'.*no array in one piece where an array"),
    (WHOLE + pair(("w",), bytes(msgpack.packb(msgpack.ExtType(3, b"x")))), "an extension of code 3"),
    (
        WHOLE + pair(("w",), bytes(msgpack.packb({"__msgpack_chunked_array__": True}))),
        "no array in one piece",
    ),
    (WHOLE + pair(("w",), inner((2,), "float32")), "no shape, type and bytes"),
    (WHOLE + pair(("w",), inner((2,), "float32", b"1234")), r"shape \[2\] .* does not take the 4 bytes"),
    (WHOLE + pair(("w",), inner((2**62, 4), "float32", b"")), "does not take the 0 bytes"),
    (WHOLE + pair(("w",), inner((-1,), "float32", b"")), "no size where a size should be"),
    (WHOLE + pair(("w",), inner((1,) * 17, "float32", b"1234")), "list of 17 values where 16 at most"),
    (WHOLE + pair(("w",), inner((1,), "object", b"12345678")), "numbers of type 'object'"),
]


@pytest.mark.parametrize(("content", "said"), BAD, ids=range(len(BAD)))
def test_what_is_no_stream_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "streaming_params"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=said) as caught:
        open_checkpoint(file)
    assert str(file) in str(caught.value)


def test_every_cut_of_a_stream_is_refused(tmp_path: Path) -> None:
    whole, file = stream({name: TENSORS[name] for name in list(TENSORS)[:2]}), tmp_path / "cut"
    first = len(stream({next(iter(TENSORS)): TENSORS[next(iter(TENSORS))]}))
    for length in {*range(4, len(whole))} - {first}:
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            open_checkpoint(file)
