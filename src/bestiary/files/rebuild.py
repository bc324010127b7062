"""What the pickle of a torch.save file may build: storages, views of them, and the plain values around them.

Each name that may stand in such a file has a maker here, which checks its arguments' types and builds data.
No name leads to anything of torch or Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from .pickles import Attributes, BuildError, Ignored, Maker, Name
from .source import DTYPES

_STORAGES = {
    "BoolStorage": "BOOL",
    "ByteStorage": "U8",
    "CharStorage": "I8",
    "ShortStorage": "I16",
    "IntStorage": "I32",
    "LongStorage": "I64",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "FloatStorage": "F32",
    "DoubleStorage": "F64",
    "ComplexFloatStorage": "C64",
}


@dataclass(frozen=True, eq=False)
class Storage:
    """A storage that the pickle declares: `nbytes` bytes of the run named `key`."""

    key: str
    dtype: str
    nbytes: int


@dataclass(frozen=True, eq=False)
class View:
    """A tensor as the pickle describes it, unchecked but for the types. offset and stride count elements."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def storage(value: object) -> Storage:
    """Return the Storage of a persistent id: ("storage", type, key, device, elements[, None]).

    Raises BuildError for any other.
    """
    if not isinstance(value, tuple) or value[0:1] != ("storage",) or len(value) not in (5, 6):
        raise BuildError("a persistent id is not that of a storage")
    if value[5:] not in ((), (None,)):
        raise BuildError("a storage is a view of another, as torch.save wrote before 0.4")
    _, kind, key, device, count = value[:5]
    if not isinstance(kind, Name) or kind.text not in _STORAGE_NAMES:
        raise BuildError("a storage has no known type")
    if not isinstance(key, str) or not isinstance(device, str) or type(count) is not int or count < 0:
        raise BuildError("a storage has a key, device or size of the wrong kind")
    if device.startswith("meta"):
        raise BuildError("a storage on the device 'meta' has no data")
    dtype = _STORAGE_NAMES[kind.text]
    return Storage(key, dtype, count * DTYPES[dtype].itemsize)


def _tensor(arguments: tuple[Any, ...]) -> View:
    """_rebuild_tensor(storage, offset, size, stride) and _v2(..., requires_grad, hooks[, metadata])."""
    if len(arguments) not in (4, 6, 7) or not isinstance(arguments[0], Storage):
        raise BuildError("its arguments are not those of a tensor")
    if any(arguments[6:]):
        raise BuildError("a lazily conjugated or negated tensor is not read here")
    return _view(arguments[0], arguments[0].dtype, arguments[1:4])


def _typed_tensor(arguments: tuple[Any, ...]) -> View:
    """_rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype[, metadata])."""
    if len(arguments) not in (7, 8) or not isinstance(arguments[0], Storage):
        raise BuildError("its arguments are not those of a tensor")
    dtype = arguments[6]
    if not isinstance(dtype, Name) or dtype.text not in _DTYPE_NAMES or any(arguments[7:]):
        raise BuildError("its element type is not known")
    return _view(arguments[0], _DTYPE_NAMES[dtype.text], arguments[1:4])


def _view(storage: Storage, dtype: str, geometry: tuple[Any, ...]) -> View:
    offset, shape, stride = geometry
    if type(offset) is not int or not _counts(shape) or not _counts(stride) or len(shape) != len(stride):
        raise BuildError("its offset, sizes or strides are no counts")
    return View(storage, dtype, offset, shape, stride)


def _counts(value: object) -> TypeGuard[tuple[int, ...]]:
    return isinstance(value, tuple) and all(type(n) is int for n in value)


def _parameter(arguments: tuple[Any, ...]) -> View:
    """_rebuild_parameter(tensor, requires_grad, hooks) and _with_state(..., state)."""
    if len(arguments) not in (3, 4) or not isinstance(arguments[0], View):
        raise BuildError("its arguments are not those of a parameter")
    return arguments[0]


def _ordered(arguments: tuple[Any, ...]) -> dict[object, object]:
    """OrderedDict(), or OrderedDict([[key, value], ...]) as Python 2 wrote it."""
    if arguments in ((), ([],)):
        return {}
    pairs = arguments[0]
    if len(arguments) != 1 or not isinstance(pairs, list):
        raise BuildError("its arguments are not those of an OrderedDict")
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 and type(pair[0]) is str for pair in pairs):
        raise BuildError("it is not made of names and values")
    return {pair[0]: pair[1] for pair in pairs}


def _attributes(arguments: tuple[Any, ...]) -> Attributes:
    if arguments:
        raise BuildError("it takes no arguments")
    return Attributes()


def _size(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(arguments) != 1 or not _counts(arguments[0]):
        raise BuildError("its arguments are not those of a size")
    return arguments[0]


def _ignored(_: tuple[Any, ...]) -> Ignored:
    return Ignored()


_STORAGE_NAMES = {
    **{f"torch.{name}": dtype for name, dtype in _STORAGES.items()},
    "torch.storage.UntypedStorage": "U8",
    "torch.UntypedStorage": "U8",
}
_DTYPE_NAMES = {str(dtype): name for name, dtype in DTYPES.items()}
# What training leaves beside weights: random states, losses. It is stepped over, not built.
_IGNORED = """
    torch.device _codecs.encode numpy.dtype
    numpy.core.multiarray.scalar numpy.core.multiarray._reconstruct
    numpy._core.multiarray.scalar numpy._core.multiarray._reconstruct
""".split()

# All that a file may name. Makers build the values; None: the name stands for a type and is never called.
NAMES: Mapping[str, Maker | None] = {
    **dict.fromkeys(_STORAGE_NAMES),
    **dict.fromkeys(_DTYPE_NAMES),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.Size": _size,
    **dict.fromkeys(_IGNORED, _ignored),
    "numpy.ndarray": None,
    "collections.OrderedDict": _ordered,
    "argparse.Namespace": _attributes,
}
