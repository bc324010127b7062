"""Pickles that run code when they are unpickled: refused, with nothing imported, run or opened.

Each payload is tried at several places of both layouts of torch.save, and under the names of all the files of
a model or of a training run that hold pickles. An audit hook listens to everything that the interpreter does
meanwhile.
"""

from __future__ import annotations

import io
import struct
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bestiary.files import open_checkpoint
from tests.unit.files import craft
from tests.unit.files.craft import (
    Member,
    legacy,
    name,
    number,
    pickled,
    refused,
    saved,
    state_dict,
    storage,
    text,
)

pytestmark = pytest.mark.optimised

# The names of files that hold pickles.
ROLES = """
    pytorch_model.bin optimizer.pt rng_state.pth adapter_model.bin value_head.bin gptq_model-4bit.pt
    scheduler.pt training_args.bin consolidated.00.pth model.ckpt
""".split()

COMMAND = "touch {marker}"


def split(function: str) -> tuple[str, str]:
    module, _, attribute = function.rpartition(".")
    return module, attribute


def call(module: str, attribute: str, *arguments: bytes) -> bytes:
    return name(module, attribute) + b"(" + (b"".join(arguments) or text(COMMAND)) + b"tR"


def short(value: str) -> bytes:
    return b"\x8c" + bytes([len(value.encode())]) + value.encode()


FUNCTIONS = """
    os.system posix.system nt.system os.popen os.execv os.remove os.chmod subprocess.Popen subprocess.call
    subprocess.check_output commands.getoutput builtins.eval builtins.exec builtins.compile
    builtins.getattr builtins.setattr builtins.__import__ builtins.open builtins.breakpoint builtins.input
    builtins.print builtins.type builtins.object __builtin__.eval __builtin__.file importlib.import_module
    runpy.run_path runpy._run_code pickle.loads _pickle.loads cPickle.loads marshal.loads shelve.open
    types.FunctionType types.CodeType operator.attrgetter operator.methodcaller functools.partial
    functools.reduce itertools.starmap copyreg._reconstructor copy_reg._reconstructor codecs.open io.open
    io.FileIO pathlib.Path shutil.rmtree tempfile.mktemp webbrowser.open pty.spawn code.interact
    codeop.compile_command timeit.timeit cProfile.run profile.run pdb.run bdb.Bdb.run doctest.debug
    asyncio.run threading.Thread multiprocessing.Process socket.socket urllib.request.urlopen
    http.client.HTTPConnection ctypes.CDLL ctypes.pythonapi sys.exit sys.settrace
    logging.config.fileConfig pip.main pydoc.pipepager venv.create ensurepip.bootstrap
    distutils.spawn.spawn lib2to3.pgen2.pgen.generate_grammar sqlite3.connect gc.get_objects torch.load
    torch.hub.load torch.jit.load torch.package.PackageImporter torch.storage._load_from_bytes
    torch.serialization.load torch.utils.cpp_extension.load torch.ops.load_library
    torch.classes.load_library torch.distributed.rpc.rpc_sync torch.multiprocessing.spawn
    torch._C._jit_interpret_graph torch.fx.graph_module._forward torch._utils._rebuild_sparse_tensor
    torch._utils._rebuild_qtensor torch._utils._rebuild_meta_tensor_no_storage
    torch._utils._rebuild_nested_tensor torch._utils._rebuild_wrapper_subclass
    torch._tensor._rebuild_from_type_v2 torch._utils._rebuild_device_tensor_from_numpy
    torch.nn.modules.linear.Linear torch.nn.parameter.Parameter torch.QInt8Storage torch.FloatTensor
    torch._utils torch.__dict__ numpy.load numpy.testing._private.utils.runstring
    numpy.f2py.crackfortran.myeval joblib.load cloudpickle.loads dill.loads
    transformers.training_args.TrainingArguments transformers.pipeline
    deepspeed.runtime.fp16.loss_scaler.LossScaler __main__.Model collections.OrderedDict.fromkeys
    collections.namedtuple argparse.ArgumentParser torch._utils._rebuild_tensor_v2.__globals__
    torch.Size.__class__ torch.FloatStorage.from_file torch..FloatStorage .system torch.FloatStorage\u200b
    tоrch.FloatStorage
""".split()  # the last one is spelt with a Cyrillic letter

SYSTEM, FLOATS = name("os", "system"), name("torch", "FloatStorage")
ORDERED, NAMESPACE = name("collections", "OrderedDict"), name("argparse", "Namespace")
GEOMETRY = (number(0), b")", b")", b"\x89", b"N")  # offset, sizes, strides, requires_grad, hooks


def persistent(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"tQ"


def rebuild(what: str, *arguments: bytes) -> bytes:
    return call("torch._utils", f"_rebuild_{what}", *arguments)


PAYLOADS: dict[str, bytes] = {
    **{f"call {each}": call(*split(each)) for each in FUNCTIONS},
    **{f"name {each}": name(*split(each)) for each in FUNCTIONS[:12]},
    "STACK_GLOBAL": short("os") + short("system") + b"\x93(" + text(COMMAND) + b"tR",
    "STACK_GLOBAL of remembered strings": short("os") + b"\x940" + short("system") + b"\x940h\0h\1\x93)R",
    "STACK_GLOBAL of numbers": number(1) + number(2) + b"\x93",
    "STACK_GLOBAL of names": FLOATS * 2 + b"\x93",
    "STACK_GLOBAL, dotted": short("torch") + short("hub.load") + b"\x93)R",
    "INST": b"(" + text(COMMAND) + b"ios\nsystem\n",
    "OBJ": b"(" + SYSTEM + text(COMMAND) + b"o",
    "OBJ of an allowed name": b"(" + ORDERED + b"o",
    "NEWOBJ": name("subprocess", "Popen") + b"(" + text(COMMAND) + b"t\x81",
    "NEWOBJ_EX": name("subprocess", "Popen") + b"(" + text(COMMAND) + b"t}\x92",
    "NEWOBJ_EX of an allowed name": ORDERED + b")}\x92",
    "EXT1": b"\x82\x01)R",
    "EXT2": b"\x83\x01\x00)R",
    "EXT4": b"\x84\x01\x00\x00\x00)R",
    "PERSID": b"Pos.system\n",
    "BINPERSID of a name": SYSTEM + b"Q",
    "BINPERSID of a function": persistent(text("storage"), SYSTEM, text("0"), text("cpu"), number(1)),
    "BINPERSID of a module": persistent(text("module"), SYSTEM, text("x"), text("y")),
    "BINPERSID of text": text("storage") + b"Q",
    "BINPERSID, view of another": storage("0", 1, last=b"(" + text("v") + number(0) + number(1) + b"t"),
    "BINPERSID on meta": storage("0", 1, device="meta"),
    "BINPERSID, wrong types": persistent(text("storage"), FLOATS, number(0), text("cpu"), text("1")),
    "BINPERSID, negative": storage("0", -1),
    "BUILD of a class": ORDERED + b"}" + text("__reduce__") + SYSTEM + b"sb",
    "BUILD of a tuple": b")}b",
    "BUILD of a list": b"]}b",
    "BUILD with slots": NAMESPACE + b")\x81(N}t" + b"b",
    "BUILD with a call": NAMESPACE + b")\x81" + call("os", "system") + b"b",
    "REDUCE of text": text("os.system") + b"(" + text(COMMAND) + b"tR",
    "REDUCE of a number": number(1) + b")R",
    "REDUCE of a storage type": FLOATS + b")R",
    "REDUCE of a dtype": name("torch", "float32") + b")R",
    "REDUCE without a tuple": ORDERED + b"]R",
    "OrderedDict of a number": call("collections", "OrderedDict", number(1)),
    "OrderedDict of deep keys": call("collections", "OrderedDict", b"](](]Nee"),
    "OrderedDict of two": call("collections", "OrderedDict", b"]", b"]"),
    "Namespace of a number": call("argparse", "Namespace", number(1)),
    "Size of text": call("torch", "Size", text("x")),
    "tensor of no storage": rebuild("tensor_v2", text("x"), *GEOMETRY),
    "tensor of too few": rebuild("tensor_v2", storage("0", 1)),
    "tensor of a function": rebuild("tensor_v2", SYSTEM, *GEOMETRY),
    "tensor, conjugated": rebuild("tensor_v2", storage("0", 1), *GEOMETRY, b"}" + text("conj") + b"\x88s"),
    "tensor v3 of no dtype": rebuild("tensor_v3", storage("0", 1), *GEOMETRY, text("f")),
    "tensor v3 of a function": rebuild("tensor_v3", storage("0", 1), *GEOMETRY, SYSTEM),
    "parameter of a function": rebuild("parameter", SYSTEM, b"\x89", b"N"),
    "parameter of a number": rebuild("parameter", number(1), b"\x89", b"N"),
    "a call inside a parameter's state": rebuild(
        "parameter_with_state", call("os", "system"), b"\x89", b"N", b"}"
    ),
    "a call inside what is ignored": call("_codecs", "encode", call("os", "system"), text("latin1")),
    "GLOBAL without an end": b"c" + b"a" * 10_000,
    "GLOBAL with NUL": name("os\0", "system"),
    "GLOBAL, not UTF-8": b"c\xff\nsystem\n",
    "GLOBAL, blank": b"c\n\n",
    "text protocol": b"cos\nsystem\n(S'" + COMMAND.encode() + b"'\ntR",
    "DUP": SYSTEM + b"2",
    "buffers": b"\x97\x98",
    "int key that is a tuple": b"}(" + b")" + number(1) + b"u",
    "set of tuples": b"\x8f()\x90",
    "unknown instruction": b"\xff",
}

TENSOR = craft.tensor(storage("0", 1), [1], [1])


def places(payload: bytes) -> dict[str, bytes]:
    """The payload in a dict of tensors, before it, as its attributes, and in each pickle of a file."""
    run = {"0": bytes(4)}
    runs = {"0": (1, bytes(4))}
    value = pickled(state_dict({"w": TENSOR, "x": payload}))
    first = pickled(payload + b"0" + state_dict({"w": TENSOR}), 4)
    attributes = pickled(state_dict({"w": TENSOR}) + b"}" + text("_metadata") + payload + b"sb")
    return {
        "zip, a value": saved(value, run),
        "zip, dropped": saved(first, run),
        "zip, an attribute": saved(attributes, run),
        "legacy, a value": legacy(value, runs),
        "legacy, dropped": legacy(first, runs),
        "legacy, as magic": legacy(value, runs, magic=pickled(payload)),
        "legacy, as system": legacy(value, runs, system=pickled(payload)),
        "legacy, as keys": legacy(value, runs, keys=pickled(payload)),
        "legacy, alone": pickled(payload),
    }


# Listening.

_heard: list[str] | None = None
_WATCHED = tuple(
    """
    exec compile import open ctypes. os. pickle. shutil. socket. subprocess. urllib. webbrowser. pty. marshal.
    code. function. object.
    """.split()
)


def _listen(event: str, args: tuple[object, ...]) -> None:
    if _heard is not None and event.startswith(_WATCHED) and event not in ("os.listdir", "os.scandir"):
        _heard.append(f"{event} {args!r}"[:200])


sys.addaudithook(_listen)


@contextmanager
def silence(allowed: Path) -> Iterator[None]:
    """Fail when anything is heard but the opening of one file."""
    global _heard  # noqa: PLW0603 (an audit hook cannot be taken out again)
    _heard = []
    try:
        yield
    finally:
        heard, _heard = _heard, None
    if unexpected := [event for event in heard if not (event.startswith("open ") and str(allowed) in event)]:
        pytest.fail(f"{unexpected}")


def warm(path: Path) -> None:
    """Read a good file once, so that what Python imports for its own sake is imported."""
    path.write_bytes(saved(pickled(state_dict({"w": TENSOR})), {"0": bytes(4)}))
    craft.read_all(open_checkpoint(path))
    refused(path, b"\x80")
    path.unlink()


def test_the_listener_hears() -> None:
    with pytest.raises(pytest.fail.Exception, match="compile"), silence(Path("/nothing")):
        compile("1", "x", "eval")


def test_enough_payloads() -> None:
    if len(PAYLOADS) < 60 or len(places(b"N")) * len(PAYLOADS) < 600:
        pytest.fail("too few")


@pytest.mark.parametrize("kind", PAYLOADS)
def test_hostile_pickles_are_refused_in_silence(tmp_path: Path, kind: str) -> None:
    marker = tmp_path / "marker"
    payload = PAYLOADS[kind].replace(text(COMMAND), text(COMMAND.format(marker=marker)))
    warm(tmp_path / "warm.bin")
    for place, content in places(payload).items():
        path = tmp_path / ROLES[hash_of(kind + place) % len(ROLES)]
        path.write_bytes(content)
        with silence(path):
            error = refused(path)
        path.unlink()
        if list(tmp_path.iterdir()):
            pytest.fail(f"{place}: something was written: {list(tmp_path.iterdir())}")
        if error.offset is None:
            pytest.fail(f"{place}: no byte is named: {error}")


def hash_of(word: str) -> int:
    return sum(word.encode())


@pytest.mark.parametrize("role", ROLES)
def test_every_role_is_refused(tmp_path: Path, role: str) -> None:
    for content in places(call("os", "system")).values():
        error = refused(tmp_path / role, content)
        if "safetensors" not in str(error):
            pytest.fail(f"no remedy: {error}")


@pytest.mark.parametrize("each", [each for each in FUNCTIONS if each.isascii()])
def test_the_error_names_the_function_and_its_byte(tmp_path: Path, each: str) -> None:
    content = saved(pickled(state_dict({"w": TENSOR, "x": call(*split(each))})), {"0": bytes(4)})
    error = refused(tmp_path / "pytorch_model.bin", content, saying=repr(each))
    if error.offset != content.index(name(*split(each))):
        pytest.fail(f"{error.offset}")


def test_tar_files_are_refused(tmp_path: Path) -> None:
    for payload in [*PAYLOADS.values()][::10]:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for member in ("storages", "tensors", "pickle"):
                raw = pickled(payload)
                info = tarfile.TarInfo(member)
                info.size = len(raw)
                tar.addfile(info, io.BytesIO(raw))
        refused(tmp_path / "pytorch_model.bin", buffer.getvalue(), saying="tar archive")


def test_torchscript_is_refused(tmp_path: Path) -> None:
    for extra in ("archive/constants.pkl", "archive/code/__torch__.py"):
        content = saved(pickled(state_dict({"w": TENSOR})), {"0": bytes(4)}, Member(extra, b"x"))
        refused(tmp_path / "model.pt", content, saying="TorchScript")


# Pickles that are no code and would still take the machine's memory or time.

# What the error says -> instructions that are refused with it. They leave one value, which is dropped.
LARGE: dict[str, dict[str, bytes]] = {
    "more than 1,000,000 instructions": {
        "without end": b"N0" * 1_100_000 + b"N",
        "stack": b"N" * 3_000_000,
        "marks": b"(" * 3_000_000,
        "marks, emptied": b"(0" * 1_100_000 + b"N",
    },
    "more than 250,000 containers": {
        "lists": b"]0" * 600_000 + b"N",
        "tuples": b"N\x850" * 600_000 + b"N",
        "dicts in a list": b"](" + b"}" * 600_000 + b"e",
        "calls": ORDERED + b"q\x000" + b"h\x00)R0" * 400_000 + b"N",
    },
    "remembers more than 250,000": {
        "LONG_BINPUT": b"N" + b"".join(b"r" + struct.pack("<I", i) for i in range(600_000)),
        "MEMOIZE": b"N" + b"\x94" * 600_000,
    },
    "an integer of": {"a million bytes": b"\x8b" + struct.pack("<I", 1_000_000) + b"\xff" * 1_000_000},
    "is cut, or longer than": {
        "text of 2^63": b"\x8d" + struct.pack("<Q", 2**63),
        "text of 2^32": b"X" + b"\xff" * 4,
        "bytes of 2^62": b"\x8e" + struct.pack("<Q", 2**62),
    },
    "longer than what is left": {"frame of 2^63": b"\x95" + struct.pack("<Q", 2**63) + b"N"},
    "no plain values": {
        "keys of one hash": b"}(" + b"".join(number(i * (2**61 - 1)) + b"N" for i in range(1, 20_000)) + b"u",
        "hash of a doubling tuple": b"}(" + b")" + b"q\x00h\x00\x86" * 60 + b"Nu",
        "keys that are dicts": b"}(}Nu",
        "a set of lists": b"\x8f(]\x90",
        "a frozen set of tuples": b"()\x91",
    },
    "a key and no value": {"odd number of items": b"}(Nu"},
    "never began": {"TUPLE": b"t", "SETITEMS": b"}u", "POP_MARK": b"1"},
    "not there": {
        "POP": b"00",
        "TUPLE2": b"N\x86",
        "below a mark": NAMESPACE + b")(\x81",
        "append below a mark": b"]N(a",
        "top below a mark": b"](N1a",
    },
    "never remembered": {"BINGET": b"h\x07", "LONG_BINGET": b"j\xff\xff\xff\xff"},
    "of protocol": {"6": b"\x80\x06N", "255": b"\x80\xffN"},
    "values left over": {"two values": b"N", "a mark": b"("},
    "needs a list": {"append to a tuple": b")Na", "append to a dict": b"}Na"},
    "needs a dict": {"items of a list": b"](NNu"},
    "needs a set": {"items of a dict": b"}(N\x90"},
}


@pytest.mark.parametrize(
    ("saying", "kind"), [(saying, kind) for saying, kinds in LARGE.items() for kind in kinds]
)
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_pickles_without_measure_are_refused(tmp_path: Path, saying: str, kind: str, form: str) -> None:
    pickle = pickled(LARGE[saying][kind] + b"0" * (saying != "values left over") + state_dict({"w": TENSOR}))
    content = saved(pickle, {"0": bytes(4)}) if form == "zip" else legacy(pickle, {"0": (1, bytes(4))})
    refused(tmp_path / "pytorch_model.bin", content, saying=saying)


def test_values_that_double_are_harmless(tmp_path: Path) -> None:
    """Sixty lists, each holding the one before twice, beside the tensors: 2**60 leaves that nobody visits."""
    doubling = b"]" + b"".join(
        b"q" + bytes([i]) + b"0](h" + bytes([i]) + b"h" + bytes([i]) + b"e" for i in range(60)
    )
    itself = b"]q\xf0h\xf0a"
    content = saved(pickled(state_dict({"w": TENSOR, "x": doubling, "y": itself})), {"0": bytes(4)})
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(content)
    checkpoint = open_checkpoint(path)
    assert [*checkpoint.entries] == ["w"]
    assert not checkpoint.metadata


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    pickle = pickled(state_dict({"w": TENSOR, "x": craft.tensor(storage("1", 2), [2], [1])}))
    files = (
        saved(pickle, {"0": bytes(4), "1": bytes(8)}, wide=True),
        legacy(pickle, {"0": (1, bytes(4)), "1": (2, bytes(8))}),
    )
    for whole in files:
        path = tmp_path / "pytorch_model.bin"
        for length in range(len(whole)):
            refused(path, whole[:length])
        path.write_bytes(whole)
        assert len(open_checkpoint(path).entries) == 2
