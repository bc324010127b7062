"""Pickle as data: the instructions that `torch.save` writes, carried out on plain values only.

Nothing is imported, no class is looked up and no function is called but the makers handed in, each written
for one name. A name without a maker, and an instruction that can do more than build numbers, strings and
containers, is an error that says where it stands. (Scanning for bad names is no defence: CVE-2026-14535.
Restricting the stock unpickler was none either: CVE-2025-32434, CVE-2026-24747.)

Instructions: the comments of CPython's Lib/pickletools.py, protocols 2 to 5.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from .source import Source

# Bounds. The largest published shards have some 10,000 tensors, of 25 instructions and 8 remembered values
# each.
MOST_BYTES = 64 << 20
MOST_INSTRUCTIONS = 1_000_000
MOST_CONTAINERS = MOST_REMEMBERED = 250_000

REMEDY = "Ask for a safetensors version of this model; do not open this file with any tool that unpickles"

Maker = Callable[[tuple[Any, ...]], object]


@dataclass(frozen=True)
class Name:
    """A `module.name` that a file refers to, as text. `maker`, if any, builds what a call of it gives."""

    text: str
    maker: Maker | None


class Attributes(dict[str, object]):
    """An object that has nothing but attributes, as a dict: argparse.Namespace."""


class Stateful(ABC):
    """What a maker returns for a value whose content follows as its state."""

    __slots__ = ()

    @abstractmethod
    def take(self, state: object) -> None:
        """Take in the state. Raises BuildError for one that is refused."""


class Ignored(Stateful):
    """What a maker returns for a value that means nothing here. It takes any state, and drops it."""

    __slots__ = ()

    def take(self, state: object) -> None:
        pass


@dataclass(frozen=True)
class Span:
    """Where a byte string lies in the file, in place of the string."""

    offset: int
    nbytes: int


class BuildError(ValueError):
    """Raised by makers: why they refuse their arguments."""


def load(
    source: Source,
    start: int,
    end: int,
    *,
    names: Mapping[str, Maker | None],
    persistent: Callable[[object], object] | None = None,
    spans: bool = False,
) -> tuple[Any, int]:
    """Return the value of the pickle at bytes `start` to `end` of a file, and where it stops.

    names: what the file may refer to, "module.name" -> maker (None: it may be referred to and not called).
    persistent: turns a persistent id, which torch uses for storages, into a value; BuildError is raised for a
    bad one. spans: byte strings stay in the file, each a Span, and may be of any length. Raises
    CheckpointError, naming the offset, for everything else that a pickle can say.
    """
    machine = _Machine(source, start, end, names, persistent, spans)
    return machine.run(), machine.at


_PLAIN = (str, int, float, bytes, bool, type(None))


class _Machine:
    """A stack, a memory and a position."""

    def __init__(
        self,
        source: Source,
        start: int,
        end: int,
        names: Mapping[str, Maker | None],
        persistent: Callable[[object], object] | None,
        spans: bool,
    ) -> None:
        self.source, self.data, self.at = source, source.data, start
        # `end` leaves room for MOST_BYTES that are read, and moves on by the bytes that are stepped over.
        self.end, self.last = min(end, start + MOST_BYTES), end
        self.names, self.persistent, self.spans = names, persistent, spans
        self.began = start  # of the instruction being carried out
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memory: dict[int, Any] = {}
        self.containers = 0

    def run(self) -> Any:
        done = 0
        while (code := self.next()) != _STOP:
            if code not in _INSTRUCTIONS:
                what = _REFUSED.get(code, f"{code:#04x}")
                self.refuse(
                    f"the pickle has the instruction {what}, which torch.save never writes for weights"
                )
            _INSTRUCTIONS[code](self)
            done += 1
            if done > MOST_INSTRUCTIONS:
                self.refuse(f"the pickle has more than {MOST_INSTRUCTIONS:,} instructions")
        value = self.pop()
        if self.stack or self.marks:
            self.refuse("the pickle stops with values left over")
        return value

    def next(self) -> int:
        self.began = self.at
        return self.take(1)[0]

    def refuse(self, reason: str) -> NoReturn:
        raise self.source.error(reason, offset=self.began, remedy=REMEDY)

    # Reading what follows an instruction.

    def take(self, count: int) -> memoryview:
        if count > self.end - self.at:
            self.refuse(f"the pickle is cut, or longer than {MOST_BYTES:,} bytes")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, kind: struct.Struct) -> Any:
        return kind.unpack(self.take(kind.size))[0]

    def string(self, count: int) -> bytes | Span:
        if not self.spans:
            return bytes(self.take(count))
        if count > self.last - self.at:
            self.refuse("the pickle is cut")
        span = Span(self.at, count)
        self.at += count
        self.end = min(self.end + count, self.last)
        return span

    def text(self, count: int) -> str:
        try:
            return str(self.take(count), "utf-8")
        except UnicodeDecodeError:
            self.refuse("the pickle holds a string that is not UTF-8")

    def line(self) -> str:
        window = bytes(self.data[self.at : min(self.at + 256, self.end)])
        length = window.find(b"\n")
        if length < 0:
            self.refuse("the pickle holds a name without an end")
        line = self.text(length)
        self.take(1)
        return line

    # The stack. Values below the last mark are out of reach.

    def push(self, value: object) -> None:
        self.stack.append(value)

    def push_container(self, value: object) -> None:
        self.containers += 1
        if self.containers > MOST_CONTAINERS:
            self.refuse(f"the pickle builds more than {MOST_CONTAINERS:,} containers")
        self.stack.append(value)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            self.refuse("the pickle takes a value that is not there")
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        if not self.marks:
            self.refuse("the pickle ends a group that never began")
        mark = self.marks.pop()
        values = self.stack[mark:]
        del self.stack[mark:]
        return values

    def top(self, kind: type[Any]) -> Any:
        value = self.pop()
        if not isinstance(value, kind):
            self.refuse(f"the pickle needs a {kind.__name__} where it has a {type(value).__name__}")
        self.stack.append(value)
        return value

    # Instructions that do more than push.

    def pop_any(self) -> None:
        """POP: a value, or an empty group's mark."""
        if self.marks and len(self.stack) == self.marks[-1]:
            self.marks.pop()
        else:
            self.pop()

    def pop_group(self) -> None:
        self.pop_mark()

    def tuple(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.push_container(tuple(reversed(values)))

    def append(self) -> None:
        value = self.pop()
        self.top(list).append(value)

    def extend(self) -> None:
        values = self.pop_mark()
        self.top(list).extend(values)

    def set_items(self, values: list[Any]) -> None:
        if len(values) % 2:
            self.refuse("the pickle has a dict with a key and no value")
        self.top(dict).update(zip(self.hashable(values[::2]), values[1::2], strict=True))

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def add_items(self) -> None:
        values = self.pop_mark()
        self.top(set).update(self.hashable(values))

    def hashable(self, keys: list[Any]) -> list[Any]:
        # No tuples: to hash forty of them, each holding the one before twice, takes 2**40 steps. No integers
        # past 61 bits: all multiples of 2**61 - 1 have one hash, and a dict of them takes the square of their
        # number.
        if not all(type(key) in _PLAIN and (type(key) is not int or abs(key) < 2**61 - 1) for key in keys):
            self.refuse("the pickle has a dict or set whose keys are no plain values")
        return keys

    def remember(self, key: int) -> None:
        value = self.pop()
        self.push(value)
        self.memory[key] = value
        if len(self.memory) > MOST_REMEMBERED:
            self.refuse(f"the pickle remembers more than {MOST_REMEMBERED:,} values")

    def recall(self, key: int) -> None:
        if key not in self.memory:
            self.refuse(f"the pickle recalls value {key}, which it never remembered")
        self.push(self.memory[key])

    def integer(self, count: int) -> None:
        if count > 16:
            self.refuse(f"the pickle has an integer of {count} bytes")
        self.push(int.from_bytes(self.take(count), "little", signed=True))

    def name(self, module: object, name: object) -> None:
        text = f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else "what is no name"
        if text not in self.names:
            self.refuse(f"the pickle wants to use {text[:200]!r}, which is no part of plain weights")
        self.push(Name(text, self.names[text]))

    def stack_name(self) -> None:
        name, module = self.pop(), self.pop()
        self.name(module, name)

    def call(self) -> None:
        """REDUCE and NEWOBJ: a name and a tuple of arguments become what the name's maker makes of them."""
        arguments, name = self.pop(), self.pop()
        if not isinstance(name, Name) or not isinstance(arguments, tuple):
            self.refuse("the pickle calls what is no function")
        if name.maker is None:
            self.refuse(f"the pickle calls {name.text!r}, which may only be named")
        maker = name.maker
        self.push_container(self.attempt(lambda: maker(arguments), f"{name.text}: "))

    def attempt(self, make: Callable[[], object], what: str = "") -> object:
        """Return what a maker makes; its refusal is the pickle's."""
        try:
            return make()
        except BuildError as fault:
            self.refuse(f"{what}{fault}")

    def build(self) -> None:
        """BUILD: attributes. Those of an OrderedDict (`_metadata`, versions of modules) are dropped."""
        state, target = self.pop(), self.pop()
        self.push(target)
        if isinstance(target, Stateful):
            self.attempt(lambda: target.take(state))
            return
        if not isinstance(target, dict) or not isinstance(state, dict):
            self.refuse("the pickle sets attributes of what has none")
        if isinstance(target, Attributes):
            target.update({key: value for key, value in state.items() if isinstance(key, str)})

    def persistent_id(self) -> None:
        value, make = self.pop(), self.persistent
        if make is None:
            self.refuse("the pickle refers to a storage where none can be")
        self.push(self.attempt(lambda: make(value)))

    def frame(self) -> None:
        if self.number(_U64) > self.last - self.at:
            self.refuse("the pickle has a frame that is longer than what is left")

    def protocol(self) -> None:
        if (version := self.number(_U8)) > 5:
            self.refuse(f"the pickle is of protocol {version}")


_U8, _U16, _U32, _U64 = struct.Struct("<B"), struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<Q")
_I32, _DOUBLE = struct.Struct("<i"), struct.Struct(">d")
_STOP = ord(".")

_INSTRUCTIONS: Mapping[int, Callable[[_Machine], None]] = {
    0x80: _Machine.protocol,
    0x95: _Machine.frame,
    ord("("): lambda m: m.marks.append(len(m.stack)),
    ord("0"): _Machine.pop_any,
    ord("1"): _Machine.pop_group,
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("J"): lambda m: m.push(m.number(_I32)),
    ord("K"): lambda m: m.push(m.number(_U8)),
    ord("M"): lambda m: m.push(m.number(_U16)),
    0x8A: lambda m: m.integer(m.number(_U8)),
    0x8B: lambda m: m.integer(m.number(_U32)),
    ord("G"): lambda m: m.push(m.number(_DOUBLE)),
    # Strings; BINSTRING and SHORT_BINSTRING are Python 2's str.
    ord("X"): lambda m: m.push(m.text(m.number(_U32))),
    0x8C: lambda m: m.push(m.text(m.number(_U8))),
    0x8D: lambda m: m.push(m.text(m.number(_U64))),
    ord("T"): lambda m: m.push(m.text(m.number(_U32))),
    ord("U"): lambda m: m.push(m.text(m.number(_U8))),
    ord("B"): lambda m: m.push(m.string(m.number(_U32))),
    ord("C"): lambda m: m.push(m.string(m.number(_U8))),
    0x8E: lambda m: m.push(m.string(m.number(_U64))),
    0x96: lambda m: m.push(m.string(m.number(_U64))),
    # Containers.
    ord(")"): lambda m: m.tuple(0),
    0x85: lambda m: m.tuple(1),
    0x86: lambda m: m.tuple(2),
    0x87: lambda m: m.tuple(3),
    ord("t"): lambda m: m.push_container(tuple(m.pop_mark())),
    ord("]"): lambda m: m.push_container([]),
    ord("a"): _Machine.append,
    ord("e"): _Machine.extend,
    ord("}"): lambda m: m.push_container({}),
    ord("s"): _Machine.set_item,
    ord("u"): lambda m: m.set_items(m.pop_mark()),
    0x8F: lambda m: m.push_container(set()),
    0x90: _Machine.add_items,
    0x91: lambda m: m.push_container(frozenset(m.hashable(m.pop_mark()))),
    # The memory.
    ord("q"): lambda m: m.remember(m.number(_U8)),
    ord("r"): lambda m: m.remember(m.number(_U32)),
    0x94: lambda m: m.remember(len(m.memory)),
    ord("h"): lambda m: m.recall(m.number(_U8)),
    ord("j"): lambda m: m.recall(m.number(_U32)),
    # Names and what is done with them.
    ord("c"): lambda m: m.name(m.line(), m.line()),
    0x93: _Machine.stack_name,
    ord("R"): _Machine.call,
    0x81: _Machine.call,
    ord("b"): _Machine.build,
    ord("Q"): _Machine.persistent_id,
}

# Known, and refused by name: they import, call, or refer to what only the writing process had.
_REFUSED: Mapping[int, str] = {
    ord("i"): "INST",
    ord("o"): "OBJ",
    ord("P"): "PERSID",
    0x82: "EXT1",
    0x83: "EXT2",
    0x84: "EXT4",
    0x92: "NEWOBJ_EX",
    0x97: "NEXT_BUFFER",
    0x98: "READONLY_BUFFER",
    ord("2"): "DUP",
    **{ord(c): f"{c!r} of the text protocol" for c in "FILSVdglp"},
}
