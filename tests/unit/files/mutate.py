"""Damage to files: the ways in which bytes go wrong by accident and by intent."""

from __future__ import annotations

import random
from collections.abc import Callable

# Numbers at which arithmetic turns.
EDGES = [0, 1, 2, 7, 8, 31, 32, 63, 64, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1,
2**32, 2**61,
         2**62, 2**63 - 1, 2**63, 2**64 - 32, 2**64 - 1]  # fmt: skip


def _flip(rng: random.Random, data: bytearray, at: int) -> None:
    data[at] ^= 1 << rng.randrange(8)


def _byte(rng: random.Random, data: bytearray, at: int) -> None:
    data[at] = rng.randrange(256)


def _number(rng: random.Random, data: bytearray, at: int) -> None:
    width = rng.choice((1, 2, 4, 8))
    raw = (rng.choice(EDGES) % 2 ** (8 * width)).to_bytes(width, rng.choice(("little", "little", "big")))
    data[at : at + width] = raw


def _nudge(rng: random.Random, data: bytearray, at: int) -> None:
    width = rng.choice((1, 2, 4, 8))
    value = int.from_bytes(data[at : at + width], "little") + rng.choice((-32, -8, -1, 1, 8, 32))
    data[at : at + width] = (value % 2 ** (8 * width)).to_bytes(width, "little")


def _digit(rng: random.Random, data: bytearray, at: int) -> None:
    """Change the next digit, bracket or quote of a text."""
    for place in range(at, min(at + 40, len(data))):
        if data[place] in b'0123456789[]{}",:.':
            data[place] = rng.choice(b'0123456789[]{}",:.-eE\\ ')
            return


def _delete(rng: random.Random, data: bytearray, at: int) -> None:
    del data[at : at + rng.choice((1, 1, 2, 4, 8, 30))]


def _insert(rng: random.Random, data: bytearray, at: int) -> None:
    data[at:at] = rng.randbytes(rng.choice((1, 1, 2, 4, 8)))


def _repeat(rng: random.Random, data: bytearray, at: int) -> None:
    piece = data[at : at + rng.choice((1, 4, 16, 40))]
    data[at:at] = piece * rng.choice((1, 2, 10))


def _move(rng: random.Random, data: bytearray, at: int) -> None:
    start = rng.randrange(len(data))
    piece = data[start : start + rng.choice((1, 4, 8, 24))]
    data[at : at + len(piece)] = piece


def _cut(rng: random.Random, data: bytearray, at: int) -> None:
    del data[at:]


_WAYS: list[Callable[[random.Random, bytearray, int], None]] = [
    _flip, _flip, _byte, _number, _number, _nudge, _nudge, _digit, _delete, _insert, _repeat, _move, _cut,
]  # fmt: skip


def mutant(rng: random.Random, whole: bytes) -> bytearray:
    """Return the file with one to four things wrong with it."""
    data = bytearray(whole)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        if data:
            rng.choice(_WAYS)(rng, data, rng.randrange(len(data)))
    return data
